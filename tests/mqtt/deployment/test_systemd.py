"""contrib/systemd/: systemd takes the units, and the service does with sockets and signals what they say of it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from mqtt.peers import WELCOME, connack, connect
from proxyproto_rs import Header, create_connection

from .units import CONFIGURATION, INSTALLED, SERVICE, SOCKET, UNITS, command_of, settings, started

if TYPE_CHECKING:
    from pathlib import Path

ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 15
"""Of systemd's scale from 0 to 100. What counts is that it has a network, and sees the machine's files."""

HEADER = Header.v2(("192.0.2.1", 12345), ("198.51.100.1", 1883))

needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd is not installed: apt-get install systemd"
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The configuration of contrib/systemd/, with a user, and with this machine for a proxy."""
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    (tmp_path / "users.txt").write_text(f"user:{hashed}\n")
    text = (UNITS / "broker.yaml").read_text()
    for old, new in (
        (CONFIGURATION, str(tmp_path)),
        ("/var/log/proxyproto-rs", str(tmp_path)),
        ("/var/lib/proxyproto-rs/messages", str(tmp_path / "messages")),
        ("10.0.0.0/24", "127.0.0.1"),
        ("127.0.0.1:8083", "127.0.0.1:0"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "broker.yaml").write_text(text)
    return tmp_path


def client(port: int, password: str = "right") -> socket.socket:
    sock = create_connection(("127.0.0.1", port), 10, header=HEADER)
    sock.sendall(connect("dev", password=password.encode()).encode())
    return sock


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "proxyproto-rs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(program)))
    verified = analyze("verify", "--man=no", tmp_path / SOCKET.name, tmp_path / SERVICE.name)
    # It also complains of other units of this machine.
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "proxyproto" in line]
    assert (verified.returncode, complaints) == (0, [])


def test_the_user_of_the_service_is_made(tmp_path: Path) -> None:
    program = shutil.which("systemd-sysusers")
    if program is None:
        pytest.skip("systemd is not installed: apt-get install systemd")
    (tmp_path / "etc").mkdir()
    subprocess.run([program, f"--root={tmp_path}", UNITS / "sysusers.conf"], check=True, capture_output=True)
    users = [line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    assert settings(SERVICE)["User"] == users


@needs_systemd
def test_the_service_is_hardened() -> None:
    judged = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", SERVICE)
    assert judged.returncode == 0, judged.stdout


def test_systemd_waits_longer_than_the_sessions_take_to_end() -> None:
    from proxyproto_rs.mqtt.config.sections import MqttConfig

    (waits,) = settings(SERVICE)["TimeoutStopSec"]
    assert int(waits) >= MqttConfig().drain * 2


def test_debian_12_knows_the_type_of_the_service() -> None:
    assert settings(SERVICE)["Type"] == [
        "notify"
    ]  # notify-reload came with systemd 253, and Debian 12 has 252


def test_a_restart_keeps_clients_waiting(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with started(directory, listening) as first:
            with client(port) as served:
                assert served.recv(4) == WELCOME
            with client(port, "wrong") as refused:
                assert refused.recv(4) == connack(5)
            assert first.stop() == 0
            assert first.report() == ["STOPPING=1"]
        with client(port) as waiting, started(directory, listening) as second:
            assert waiting.recv(4) == WELCOME
            assert second.stop() == 0


def test_a_reload_is_told_and_a_wrong_file_fails_it(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, started(directory, listening) as service:
        assert service.reload() == [0, 0]
        reloading, since = service.report()
        assert (reloading, re.sub(r"\d+", "N", since)) == ("RELOADING=1", "MONOTONIC_USEC=N")
        assert service.report() == ["READY=1"]
        with (directory / "broker.yaml").open("a") as file:
            file.write("limits: {max_sessions: -1}\n")
        assert service.reload() == [2]
        with client(listening.getsockname()[1]) as served:
            assert served.recv(4) == WELCOME
        assert service.stop() == 0


def test_without_the_socket_unit_the_service_says_what_is_missing(directory: Path) -> None:
    (start,) = settings(SERVICE)["ExecStart"]
    command = command_of(start, directory)
    assert command[0] == sys.executable
    done = subprocess.run(
        command,
        env={"STATE_DIRECTORY": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "proxyproto-rs broker: listeners.tcp.bind: systemd:tcp: systemd has passed no socket: this process was not"
        " started by a socket unit (LISTEN_PID)"
    )


def test_what_systemd_cannot_be_told_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from proxyproto_rs.cli import systemd

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.tell("READY=1")
    assert [record.getMessage() for record in caplog.records] == [
        "systemd cannot be told READY=1: No such file or directory"
    ]


def test_systemd_may_listen_on_an_abstract_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from proxyproto_rs.cli import systemd

    name = f"proxyproto-rs-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reports:
        reports.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.tell("READY=1", "STATUS=x")
        assert reports.recv(100) == b"READY=1\nSTATUS=x"
