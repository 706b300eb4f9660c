"""A Listener given away as sock=, and to whoever else waits and accepts: asyncio takes it, uvloop is refused."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, V2, Peer, TlsPeer, connected, wait_readable
from proxyproto_rs import Listener, ProxiedSocket, get_header
from served import HEADER, Echo, on_asyncio, on_uvloop

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@on_asyncio
@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_asyncio_serves_it_as_sock(listener: Listener, kind: str) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert get_header(writer) == HEADER
        assert writer.get_extra_info("peername") == CLIENT
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    loop = asyncio.get_running_loop()
    if kind == "create_server":
        server = await loop.create_server(lambda: Echo(made), sock=listener)
    else:
        server = await asyncio.start_server(handler, sock=listener)
    async with server:
        async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
            assert await reader.readexactly(4) == b"ping"
        if kind == "create_server":
            protocol = await made.get()
            assert (protocol.peername, protocol.header) == (CLIENT, HEADER)
            await protocol.lost
    assert listener.fileno() == -1


@on_asyncio
async def test_a_drained_listener_does_not_keep_asyncio_busy(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    """asyncio cannot know that it is over: it is told once, and not in each turn of its loop."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop_errors.append(context)
        told.set()

    loop.set_exception_handler(handle)
    async with await loop.create_server(asyncio.Protocol, sock=listener):
        listener.drain()
        await told.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not wait_readable(listener.fileno(), 0)
    assert [error["exception"].errno for error in loop_errors] == [errno.EBADF]
    loop_errors.clear()


@on_asyncio
async def test_asyncio_serves_tls_on_it_as_sock(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    made: asyncio.Queue[Echo] = asyncio.Queue()

    def client() -> bytes:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=V2)
            tls.send(b"ping")
            return tls.receive()

    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Echo(made), sock=listener, ssl=server_context):
        assert await asyncio.to_thread(client) == b"ping"
        protocol = await made.get()
        assert (protocol.peername, protocol.header) == (CLIENT, HEADER)
        await protocol.lost


async def test_the_loop_accepts_from_it(listener: Listener) -> None:
    """On uvloop too, whose sock_accept() asks the socket itself."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    accepting = asyncio.create_task(loop.sock_accept(listener))
    await asyncio.sleep(0)
    async with connected(listener.getsockname(), V2, b"x"):
        sock, address = await accepting
        with sock:
            assert isinstance(sock, ProxiedSocket)
            assert address == CLIENT
            assert await loop.sock_recv(sock, 1) == b"x"


async def test_it_is_made_non_blocking_and_asked_for_its_fd(listener: Listener) -> None:
    """On uvloop too: only its create_server() does both from the same line of a program."""
    listener.setblocking(False)
    assert not listener.getblocking()
    assert listener.fileno() >= 0
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(listener, readable.set)
    async with connected(listener.getsockname(), V2):
        await readable.wait()
        loop.remove_reader(listener)
        with listener.accept()[0] as sock:
            assert not sock.getblocking()


@on_uvloop
async def test_uvloop_is_refused_as_it_would_never_serve(listener: Listener, tmp_path: Path) -> None:
    ways = r"proxyproto_rs\.uvloop\.Loop.*listener\.create_server.*listener\.start_server"
    loop = asyncio.get_running_loop()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=ways):
            await loop.create_server(asyncio.Protocol, sock=listener)
        with pytest.raises(RuntimeError, match=ways):
            await asyncio.start_server(lambda reader, writer: None, sock=listener)
    with Listener.unix(tmp_path / "listener.sock") as unix:
        with pytest.raises(RuntimeError, match=ways):
            await loop.create_unix_server(asyncio.Protocol, sock=unix)
        with pytest.raises(RuntimeError, match=ways):
            await loop.create_server(asyncio.Protocol, sock=unix)
    listener.setblocking(False)
    with pytest.raises(RuntimeError, match=ways):
        await asyncio.create_task(loop.create_server(asyncio.Protocol, sock=listener))
    assert listener.fileno() >= 0
