"""docs/tutorial.md, step by step: its server, its clients, its HAProxy, and what they print."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from interop.pages import example, run_example, text
from interop.proxies import find_program, running_haproxy
from interop.running import running_loop
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

PAGE = "tutorial.md"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run the tutorial's server on a free port; gives its address."""
    namespace = run_example(PAGE, "server")
    with Listener("127.0.0.1", 0) as listener:

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


def test_client_of_haproxy_sees_its_address(tmp_path: Path) -> None:
    with serving() as address, socket.create_server(("127.0.0.1", 0)) as front:
        changes = {"127.0.0.1:8000": address, "bind :9000": f"bind fd@{front.fileno()}"}
        with (
            running_haproxy(example(PAGE, "haproxy", changes), tmp_path, front),
            socket.create_connection(front.getsockname(), 10, source_address=("127.0.0.2", 0)) as client,
            client.makefile() as lines,
        ):
            assert lines.readline().startswith("You are 127.0.0.2, and sent <Header v2 PROXY")
