"""Follows docs/tutorial.md step by step: its server, its clients, its HAProxy, and what each prints."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from interop.pages import example, run_example, text
from interop.proxies import find_program, running_haproxy
from interop.running import running_loop
from mqtt.peers import connack, connect
from mqtt.test_cli_broker import running as running_broker
from peers import until
from proxyproto_rs import Header, Listener, create_connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

PAGE = "tutorial.md"


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """Run the tutorial's server on this port, or on a free one. Yields its address."""
    namespace = run_example(PAGE, "server")
    with Listener("127.0.0.1", port) as listener:

        def listen(host: str, port: int, **options: Any) -> Listener:
            assert (host, port) == ("127.0.0.1", 8000)
            listener.update(**options)
            return listener

        namespace["Listener"] = listen
        host, port = listener.getsockname()
        with running_loop(lambda _: namespace["main"](), "asyncio", listener, {}):
            yield f"{host}:{port}"


def test_client_with_a_header_sees_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as address:
        host, port = address.split(":")
        run_example(PAGE, "client", replacements={'"127.0.0.1", 8000': f'"{host}", {port}'})
    assert capsys.readouterr().out.rstrip() == text(PAGE, "answer")


def test_client_without_is_refused_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    program = find_program("curl")
    with serving() as address:
        command = example(PAGE, "stranger", {"127.0.0.1:8000": address}).split()
        refused = subprocess.run([program, "--silent", "--noproxy", "*", *command[1:]], check=False)
        assert refused.returncode != 0
    (line,) = [
        f"{record.levelname}:{record.name}:{record.getMessage()}"
        for record in caplog.records
        if "missing-header" in record.getMessage()
    ]
    before, _, after = text(PAGE, "missing-header").replace("127.0.0.1:8000", address).partition(":51724")
    assert line.startswith(before)
    assert line.endswith(after)


def ask(address: str) -> subprocess.CompletedProcess[str]:
    """Run the page's curl against HAProxy, from an address that is not HAProxy's own."""
    command = example(PAGE, "balanced", {"127.0.0.1:9000": address}).split()
    as_another = ["--silent", "--noproxy", "*", "--interface", "127.0.0.2", "--max-time", "10"]
    return subprocess.run(
        [find_program("curl"), *as_another, *command[1:]], capture_output=True, text=True, check=False
    )


def test_client_of_haproxy_sees_its_address(tmp_path: Path) -> None:
    with serving() as address, socket.create_server(("127.0.0.1", 0)) as front:
        changes = {"127.0.0.1:8000": address, "bind :9000": f"bind fd@{front.fileno()}"}
        with running_haproxy(example(PAGE, "haproxy", changes), tmp_path, front):
            host, port = front.getsockname()
            asked = ask(f"{host}:{port}")
    assert asked.stdout.startswith("You are 127.0.0.2, and sent <Header v2 PROXY")


def test_haproxy_may_start_before_the_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as front, socket.socket() as reserved:
        # It is bound, so no other program gets this port. It does not listen, so checks fail.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        host, port = reserved.getsockname()
        changes = {"127.0.0.1:8000": f"{host}:{port}", "bind :9000": f"bind fd@{front.fileno()}"}
        with running_haproxy(example(PAGE, "haproxy", changes), tmp_path, front) as haproxy:
            until(lambda: haproxy.server("app1")["status"] == "DOWN")
            front_host, front_port = front.getsockname()
            assert ask(f"{front_host}:{front_port}").stdout == ""
            with serving(port):
                until(lambda: haproxy.server("app1")["status"] == "UP")
                asked = ask(f"{front_host}:{front_port}")
    assert asked.stdout.startswith("You are 127.0.0.2, and sent <Header v2 PROXY")


def test_the_broker_lets_in_the_user_that_the_first_command_makes(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(example(PAGE, "broker", {"127.0.0.1:1883": "127.0.0.1:0"}))
    make_user, serve = (shlex.split(line) for line in example(PAGE, "broker-commands").splitlines())
    made = [sys.executable, "-m", "proxyproto_rs.cli", *make_user[1:]]
    subprocess.run(made, cwd=tmp_path, input=b"secret\n", stdout=subprocess.PIPE, check=True, timeout=30)
    assert serve[:2] == ["proxyproto-rs", "broker"]
    header = Header.v2(("192.0.2.1", 51000), ("198.51.100.1", 1883))
    with running_broker(tmp_path, *serve[2:], XDG_STATE_HOME=str(tmp_path)) as broker:
        for password, code in ((b"secret", 0), (b"wrong", 5)):
            login = connect("sensor-7", username="sensor-7", password=password).encode()
            with create_connection(("127.0.0.1", broker.port), 10, header=header) as sock:
                sock.sendall(login)
                assert sock.recv(4) == connack(code)
        broker.line("refused client=192.0.2.1:51000 reason=bad-credentials")
