"""When its Listeners end, `serve_forever` waits for the clients, with a bound, and returns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import proxyproto_rs
from interop.pages import example
from peers import V2, Peer, TlsPeer, connected, free_port, is_refused, turn_until, until
from proxyproto_rs import Listener, Server
from served import Echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
KINDS = ["create_server", "start_server"]
TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


def client_keywords(contexts: Contexts, tls: bool) -> dict[str, Any]:
    return {"ssl": contexts[1], "server_hostname": "localhost"} if tls else {}


def start(listener: Listener, contexts: Contexts, tls: bool, kind: str, **options: Any) -> Any:
    keywords = {"ssl": contexts[0] if tls else None, **options}
    if kind == "start_server":
        return listener.start_server(echo, **keywords)
    return listener.create_server(lambda: Echo(asyncio.Queue()), **keywords)


@TLS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [Listener.drain, Listener.close], ids=["drained", "closed"])
async def test_serve_forever_waits_for_the_clients_and_returns(
    listener: Listener, tls_contexts: Contexts, tls: bool, kind: str, end: Callable[[Listener], None]
) -> None:
    keywords = client_keywords(tls_contexts, tls)
    async with start(listener, tls_contexts, tls, kind, drain_timeout=None) as server:
        serving = asyncio.create_task(server.serve_forever())
        async with connected(listener.getsockname(), V2, **keywords) as (reader, writer):
            writer.write(b"before\n")
            assert await reader.readline() == b"before\n"
            end(listener)
            await turn_until(lambda: not server.is_serving())
            writer.write(b"after\n")
            assert await reader.readline() == b"after\n"
            assert not serving.done()
        await serving
        assert server.sockets == ()
        # There is nothing left to wait for.
        await server.wait_closed()


@TLS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_clients_that_stay_are_aborted(
    listener: Listener, tls_contexts: Contexts, tls: bool, kind: str, timeout: float
) -> None:
    async with start(listener, tls_contexts, tls, kind, drain_timeout=timeout) as server:
        serving = asyncio.create_task(server.serve_forever())
        with Peer(listener.getsockname()) as peer:
            await asyncio.to_thread(begin, peer, tls_contexts[1] if tls else None)
            listener.drain()
            await serving
            await asyncio.to_thread(peer.receive)
    await turn_until(lambda: listener.stats().open == 0)


def begin(peer: Peer, context: ssl.SSLContext | None) -> None:
    """Be a client that was served once."""
    if context is None:
        peer.send(V2, b"x\n")
        assert peer.sock.recv(2) == b"x\n"
    else:
        client = TlsPeer(peer, context, V2)
        client.send(b"x\n")
        assert client.receive() == b"x\n"


async def test_who_waits_no_longer_aborts_the_clients(listener: Listener) -> None:
    async with listener.start_server(echo) as server:
        serving = asyncio.create_task(server.serve_forever())
        with Peer(listener.getsockname()) as peer:
            await asyncio.to_thread(begin, peer, None)
            listener.drain()
            await turn_until(lambda: not server.is_serving())
            assert not serving.done()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert await asyncio.to_thread(peer.sees_the_end)


async def test_a_client_that_nobody_can_abort_does_not_hold_up_the_end(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listener.start_server(echo, drain_timeout=0) as server:
        monkeypatch.setattr(server, "_clients", lambda: ())
        serving = asyncio.create_task(server.serve_forever())
        with Peer(listener.getsockname()) as peer:
            await asyncio.to_thread(begin, peer, None)
            listener.drain()
            await serving
            await server.wait_closed()
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_drain_may_come_before_serve_forever(listener: Listener) -> None:
    """SIGTERM does not wait until a program has started."""
    async with listener.start_server(echo) as server:
        listener.drain()
        await turn_until(lambda: not server.is_serving())
        await server.serve_forever()


async def test_one_of_several_listeners_ends_nothing() -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    async with proxyproto_rs.start_server(echo, hosts, 0, trusted=["127.0.0.0/8"], drain_timeout=7) as server:
        assert server.drain_timeout == 7
        serving = asyncio.create_task(server.serve_forever())
        first, second = server.listeners
        first.close()
        async with connected(second.getsockname(), V2) as (reader, writer):
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n"
            server.drain()
        await serving


async def test_the_bound_is_thirty_seconds_unless_given(listener: Listener) -> None:
    async with listener.start_server(echo) as server:
        assert server.drain_timeout == 30
        server.drain_timeout = None
        assert server.drain_timeout is None


WRONG = [
    ("5", TypeError, "number or None, not str"),
    (-1, ValueError, "-1"),
    (float("nan"), ValueError, "nan"),
]


@pytest.mark.parametrize(("timeout", "error", "text"), WRONG, ids=[repr(row[0]) for row in WRONG])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_bound_is_refused(
    listener: Listener, timeout: Any, error: type[Exception], text: str, kind: str
) -> None:
    starting: Awaitable[Server] = getattr(listener, kind)(echo, drain_timeout=timeout)
    with pytest.raises(error, match=f"drain_timeout must be.*{text}"):
        await starting


PAGES = {"asyncio-restart": "howto/asyncio.md", "server": "howto/deployment.md"}
ON_UVLOOP = """
import asyncio, runpy, sys, uvloop
def run(main, asyncios=asyncio.run):
    asyncio.run = asyncios  # uvloop calls it
    uvloop.run(main)

asyncio.run = run
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("page", ["asyncio-restart", "server"])
def test_the_docs_program_finishes_the_request_under_way_at_sigterm(
    tmp_path: Path, page: str, loop: str
) -> None:
    with free_port() as port, serving_page(tmp_path, page, loop, port) as process:
        with connect(port) as peer:
            peer.send(V2, b"first\n")
            assert peer.sock.recv(64) == b"192.0.2.1\n"
            peer.send(b"sec")
            process.terminate()
            until(lambda: is_refused(("127.0.0.1", port)))
            peer.send(b"ond\n")
            assert peer.sock.recv(64) == b"192.0.2.1\n"
            assert process.poll() is None
        assert process.wait() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_docs_program_does_not_wait_for_ever(tmp_path: Path, loop: str) -> None:
    changes = {"drain_timeout=30": "drain_timeout=0"}
    with (
        free_port() as port,
        serving_page(tmp_path, "asyncio-restart", loop, port, changes) as process,
        connect(port) as peer,
    ):
        peer.send(V2, b"first\n")
        assert peer.sock.recv(64) == b"192.0.2.1\n"
        process.terminate()
        assert process.wait() == 0
        assert peer.sees_the_end()


@contextlib.contextmanager
def serving_page(
    directory: Path, name: str, loop: str, port: int, changes: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of the docs; it ends without anything to say."""
    program = directory / "server.py"
    given = {'"0.0.0.0", 8000': f'"127.0.0.1", {port}', "10.0.0.0/8": "127.0.0.1"} if name != "server" else {}
    program.write_text(example(PAGES[name], name, {**given, **(changes or {})}))
    run = ["-c", ON_UVLOOP] if loop == "uvloop" else []
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", *run, str(program)],
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        _, log = process.communicate()
    assert [line for line in log.splitlines() if "INFO" not in line] == []


def connect(port: int) -> Peer:
    """Wait until the program listens."""
    made: list[Peer] = []

    def is_connected() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            made.append(Peer(("127.0.0.1", port)))
        return bool(made)

    until(is_connected)
    return made[0]
