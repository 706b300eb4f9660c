"""HAProxy's health checks keep a server UP, and our log has no line of them above DEBUG. HAProxy itself tells the state."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING

import pytest

from interop.pages import example
from interop.proxies import HAProxyStats, running_haproxy
from peers import until

if TYPE_CHECKING:
    from pathlib import Path

    from proxyproto_rs import Listener

PAGE = "howto/haproxy.md"

CHECKS = [
    ("send-proxy-v2", {}, "local"),
    ("send-proxy", {}, "v1"),
    ("check-send-proxy", {}, "local"),
    ("check-send-proxy", {"send-proxy-v2": "send-proxy"}, "v1"),
]
IDS = ["check-v2", "check-v1", "check-send-proxy-v2", "check-send-proxy-v1"]


def configuration(name: str, listener: Listener, front: socket.socket, changes: dict[str, str]) -> str:
    host, port = listener.getsockname()
    everywhere = {"10.0.0.20:8000": f"{host}:{port}", "bind :8000": f"bind fd@{front.fileno()}"}
    if "check port" in example(PAGE, name):
        everywhere["check port 8000"] = f"check port {port}"
    return example(PAGE, name, {**everywhere, **changes})


def assert_up(haproxy: HAProxyStats) -> None:
    server = haproxy.server("app1")
    assert (server["status"], server["chkfail"], server["chkdown"]) == ("UP", "0", "0")
    assert server["check_status"].removeprefix("* ") == "L4OK"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.parametrize(("name", "changes", "outcome"), CHECKS, ids=IDS)
def test_checks_with_a_header(
    name: str,
    changes: dict[str, str],
    outcome: str,
    listener: Listener,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivered = 0
    with (
        socket.create_server(("127.0.0.1", 0)) as front,
        running_haproxy(configuration(name, listener, front, changes), tmp_path, front) as haproxy,
    ):
        # HAProxy begins the third check after it has judged the first two.
        until(lambda: listener.stats()[outcome] >= 3)
        assert_up(haproxy)
        while (conn := listener.try_accept()) is not None:
            delivered += 1
            with conn, contextlib.suppress(ConnectionResetError):
                assert conn.getpeername()[0] == "127.0.0.1"
                assert conn.recv(1) == b""
    # A check in version 1 looks like any client. The third one may still be on its way. A LOCAL check is delivered only if
    # HAProxy has not reset it yet.
    assert delivered >= 2 or outcome == "local"
    listener.close()
    assert listener.stats()[outcome] >= 3
    # HAProxy may have ended in the middle of the last one.
    assert listener.stats().refused == listener.stats()["closed-early"]
    assert lines(caplog) == []


@pytest.mark.parametrize("defer_accept", [True, False], ids=["deferred-accept", "accept"])
def test_checks_without_a_header(
    defer_accept: bool, listener: Listener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(defer_accept=defer_accept)
    changes = {"check-send-proxy": ""}
    with (
        socket.create_server(("127.0.0.1", 0)) as front,
        running_haproxy(
            configuration("check-send-proxy", listener, front, changes), tmp_path, front
        ) as haproxy,
    ):
        until(lambda: haproxy.server("app1")["check_status"] == "L4OK")
        assert_up(haproxy)
    listener.close()
    # HAProxy usually resets such a connection before the kernel offers it to us. Otherwise it counts as a probe.
    assert listener.stats().accepted == 0
    assert listener.stats().refused == listener.stats()["closed-early"]
    assert lines(caplog) == []


def test_checks_are_closed_where_the_server_does_not_want_them(
    listener: Listener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(health_checks="close")
    with (
        socket.create_server(("127.0.0.1", 0)) as front,
        running_haproxy(configuration("send-proxy-v2", listener, front, {}), tmp_path, front) as haproxy,
    ):
        until(lambda: listener.stats()["local"] >= 3)
        assert_up(haproxy)
        assert listener.try_accept() is None
    assert lines(caplog) == []
