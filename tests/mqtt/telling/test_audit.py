"""The audit log: the shape of its lines, and that neither a full nor a slow disk delays anybody."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any, get_args

import pytest

from proxyproto_rs.mqtt.telling.audit import AuditEvent, AuditLog

if TYPE_CHECKING:
    from pathlib import Path

COMMON = {
    "ts": str,
    "event": str,
    "node": str,
    "listener": str | None,
    "client": dict | None,
    "proxy": dict | None,
    "proxyVersion": int,
    "sessionId": str | None,
    "clientId": str | None,
    "username": str | None,
    "reason": str | None,
    "detail": str | None,
    "tls": dict | None,
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("event", get_args(AuditEvent))
def test_every_event_has_the_common_fields(event: AuditEvent, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.log", node="n1", clock=lambda: 1_700_000_000.0625)
    audit.write(event)
    audit.write(
        event,
        listener="ssl",
        client=("2001:db8::7", 50123),
        proxy=("10.0.0.9", 41234),
        proxy_version=2,
        session_id="5",
        client_id='forged"\n{"event":"x"}',
        username="u",
        reason="bad-credentials",
        detail="why",
        tls={"endedAt": "proxy"},
        duration=5,
        bytesIn=1,
    )
    audit.close()
    bare, full = lines(tmp_path / "audit.log")
    for line in (bare, full):
        assert {name: line[name] for name in COMMON}.keys() == COMMON.keys()
        assert all(isinstance(line[name], kind) for name, kind in COMMON.items())
        assert (line["ts"], line["event"], line["node"]) == ("2023-11-14T22:13:20.062Z", event, "n1")
    assert bare.keys() == COMMON.keys()
    assert full["client"] == {"ip": "2001:db8::7", "port": 50123}
    assert full["proxy"] == {"ip": "10.0.0.9", "port": 41234}
    assert (full["clientId"], full["duration"], full["bytesIn"]) == ('forged"\n{"event":"x"}', 5, 1)


def test_no_file_no_audit(tmp_path: Path) -> None:
    audit = AuditLog(None)
    audit.write("broker.started")
    audit.close()
    assert audit.dropped == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AuditLog(tmp_path / "no" / "audit.log")


def test_lines_are_appended_and_strangers_cannot_read_them(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        audit = AuditLog(path)
        audit.write("broker.started")
        audit.close()
    assert len(lines(path)) == 2
    assert path.stat().st_mode & 0o007 == 0


def test_reopening_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    audit = AuditLog(path)
    audit.write("broker.started")
    path.rename(tmp_path / "audit.log.1")
    audit.reopen()
    audit.write("broker.stopping")
    audit.close()
    assert [line["event"] for line in lines(tmp_path / "audit.log.1")] == ["broker.started"]
    assert [line["event"] for line in lines(path)] == ["broker.stopping"]


def test_a_full_disk_drops_lines_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    audit = AuditLog("/dev/full")
    for _ in range(5):
        audit.write("client.refused")
    audit.close()
    assert audit.dropped == 5
    assert (
        "audit file cannot be written, lines are dropped: [Errno 28] No space left on device" in caplog.text
    )
    assert len(caplog.records) == 1, "said once, not for each line"


def test_a_slow_file_drops_what_does_not_fit_and_never_waits(tmp_path: Path) -> None:
    pipe = tmp_path / "audit.fifo"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    audit = AuditLog(pipe, capacity=10)
    for _ in range(2000):  # the pipe holds 64 KiB, the queue 10 lines
        audit.write("client.refused", detail="x" * 200)
    assert audit.dropped > 1000
    read = bytearray()
    closer = threading.Thread(target=audit.close)
    closer.start()
    while closer.is_alive():
        read += _read(reader)
    read += _read(reader)
    os.close(reader)
    closer.join()
    assert len(read.splitlines()) == 2000 - audit.dropped
    assert all(json.loads(line)["event"] == "client.refused" for line in read.splitlines())


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_a_rotation_into_a_missing_directory_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    audit = AuditLog(directory / "audit.log")
    (directory / "audit.log").unlink()
    directory.rmdir()
    audit.reopen()
    audit.write("client.refused")
    while not audit.dropped:
        os.sched_yield()
    assert "audit file cannot be opened, lines are dropped" in caplog.text
    directory.mkdir()
    audit.write("client.refused")
    audit.close()
    assert len(lines(directory / "audit.log")) == 1
