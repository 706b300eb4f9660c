"""The broker's log lines, letter by letter, in both formats. No text of a stranger can forge one."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt.config import LogConfig
from proxyproto_rs.mqtt.model.connection import Connection, TlsInfo
from proxyproto_rs.mqtt.telling import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

V4 = ("203.0.113.7", 50123)
V6 = ("2001:db8::7", 50123)


def connection(client: Any = V4, proxy: Any = ("10.0.0.9", 41234), *, tls: bool = True) -> Connection:
    return Connection(
        session_id="5",
        listener="ssl",
        client=client,
        proxy=proxy,
        destination=("198.51.100.1", 8883),
        header=None if proxy is None else Header.v2(V4, ("198.51.100.1", 8883)),
        address_source="header",
        tls=TlsInfo("broker", "TLSv1.3", None, None, None, False) if tls else None,
    )


def say_connected(who: Connection, client_id: str = "dev-7", username: str | None = "u") -> None:
    logs.connected(who, client_id=client_id, username=username, keep_alive=60, clean=True)


def say_refused(who: Connection, client_id: str = "dev-7", **changes: Any) -> None:
    values: dict[str, Any] = {"reason": "bad-credentials", "attempts": 3, "username": None, **changes}
    logs.refused(who, client_id=client_id, **values)


def say_disconnected(who: Connection) -> None:
    logs.disconnected(who, reason="keep-alive", seconds=90, bytes_in=812, bytes_out=96, client_id="dev-7")


@pytest.fixture
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "proxyproto_rs.mqtt")
    caplog.handler.setFormatter(logs.TextFormatter(with_time=False))
    return caplog


LINES = [
    (
        lambda: say_connected(connection()),
        "INFO proxyproto_rs.mqtt connected client=203.0.113.7:50123 listener=ssl proxy=10.0.0.9:41234 v=2"
        ' tls=TLSv1.3 keepalive=60 clean=1 id="dev-7" user="u"',
    ),
    (
        lambda: say_connected(connection(proxy=None, tls=False), username=None),
        "INFO proxyproto_rs.mqtt connected client=203.0.113.7:50123 listener=ssl keepalive=60 clean=1"
        ' id="dev-7" user=null',
    ),
    (
        lambda: say_refused(connection(V6, ("fd00::9", 41234))),
        "WARNING proxyproto_rs.mqtt refused client=[2001:db8::7]:50123 reason=bad-credentials listener=ssl"
        ' proxy=[fd00::9]:41234 attempts=3 id="dev-7" user=null',
    ),
    (
        lambda: say_refused(connection(), username="u", detail="an auth plugin said no"),
        "WARNING proxyproto_rs.mqtt refused client=203.0.113.7:50123 reason=bad-credentials listener=ssl"
        ' proxy=10.0.0.9:41234 attempts=3 id="dev-7" user="u" detail="an auth plugin said no"',
    ),
    (
        lambda: say_disconnected(connection()),
        "INFO proxyproto_rs.mqtt disconnected client=203.0.113.7:50123 reason=keep-alive listener=ssl"
        ' seconds=90 in=812 out=96 id="dev-7"',
    ),
    (
        lambda: say_refused(connection(("/tmp/x client=1.2.3.4:5 reason=blocked ", 0))),
        "WARNING proxyproto_rs.mqtt refused client=\"/tmp/x client=1.2.3.4:5 reason=blocked \""
        ' reason=bad-credentials listener=ssl proxy=10.0.0.9:41234 attempts=3 id="dev-7" user=null',
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("say", "line"), LINES, ids=[line[:40] + str(n) for n, (_, line) in enumerate(LINES)]
)
def test_lines(say: Any, line: str, captured: pytest.LogCaptureFixture) -> None:
    say()
    assert captured.text == line + "\n"


STRANGE = [
    'x"\nWARNING proxyproto_rs.mqtt refused client=192.0.2.1:1 reason=bad-credentials listener=a',
    "\r\n\x1b[31mred\x00\x7f",
    "\u2028\u2029\x85 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "\\",
    '"',
]


@pytest.mark.parametrize("strange", STRANGE, ids=range(len(STRANGE)))
def test_a_strangers_text_stays_in_its_quotes(strange: str, captured: pytest.LogCaptureFixture) -> None:
    say_refused(connection(), strange, username=strange, detail=strange)
    (line,) = captured.text.splitlines()
    assert line.isascii()
    assert line.isprintable()
    head, tail = line.split(" attempts=3 id=", 1)
    assert head.endswith("proxy=10.0.0.9:41234")
    assert json.JSONDecoder().raw_decode(tail)[0] == strange


def test_json_has_the_fields_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(logs.JsonFormatter())
    say_refused(connection(V6, None), STRANGE[0])
    (line,) = caplog.text.splitlines()
    said = json.loads(line)
    assert said.pop("ts").endswith("Z")
    assert said.pop("message").startswith("refused client=[2001:db8::7]:50123 reason=bad-credentials ")
    assert said == {
        "level": "WARNING",
        "logger": "proxyproto_rs.mqtt",
        "event": "refused",
        "client": "[2001:db8::7]:50123",
        "reason": "bad-credentials",
        "listener": "ssl",
        "proxy": None,
        "attempts": 3,
        "id": STRANGE[0],
        "user": None,
    }


def test_json_of_others_lines_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(logs.JsonFormatter())
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logging.getLogger("amqtt").exception("it %s", "broke")
    (line,) = caplog.text.splitlines()
    said = json.loads(line)
    assert (said["logger"], said["level"], said["message"]) == ("amqtt", "ERROR", "it broke")
    assert said["exception"].endswith("RuntimeError: two\nlines")


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    levels = {name: logging.getLogger(name).level for name in ("amqtt", "transitions")}
    looked_up = {
        name: getattr(logging, name) for name in ("logThreads", "logProcesses", "logMultiprocessing")
    }
    yield
    for name, value in looked_up.items():
        setattr(logging, name, value)
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("untouched_logging")
def test_configuring_quiets_what_writes_for_every_stray_connection(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    logs.configure(LogConfig(level="INFO"))
    for name in ("amqtt.broker", "transitions.core", "proxyproto_rs.mqtt"):
        logging.getLogger(name).info("said by %s", name)
    assert capsys.readouterr().err == "INFO proxyproto_rs.mqtt said by proxyproto_rs.mqtt\n"


@pytest.mark.usefixtures("untouched_logging")
def test_a_second_configuration_replaces_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    logs.configure(LogConfig(level="DEBUG"))
    logs.configure(LogConfig(level="ERROR", format="json"))
    logging.getLogger("proxyproto_rs.mqtt").warning("no")
    logging.getLogger("proxyproto_rs.mqtt").error("yes")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "yes"
