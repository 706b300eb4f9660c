"""No connection leaves work to the collector. Memory comes back when the connection ends, not some time later.

asyncio's selector loops leave a reference cycle of their own: each transport keeps a bound method of itself up to Python
3.11, and a failed TLS handshake keeps the error that keeps its frames. So each way of serving is compared with a server
of the loop itself that has the same clients.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import socket
from typing import TYPE_CHECKING, Any

import pytest

from peers import V2, Peer, TlsPeer
from proxyproto_rs import Listener, open_streams
from served import on_asyncio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CLIENTS = 10
# What hangs on asyncio's cycles: our Connection, the entry of the context that names it, and, if the handler raises, the
# frame of ours that has called it.
OF_OURS = 6
CASES = [
    (False, "served"),
    (False, "handler raises"),
    (True, "served"),
    (True, "handler raises"),
    (True, "handshake fails"),
    (True, "handshake is cut"),
]
each_case = pytest.mark.parametrize(
    ("tls", "end"), CASES, ids=[f"{'tls' if tls else 'plain'}-{end}" for tls, end in CASES]
)


class Once(asyncio.Protocol):
    """Answers once and closes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()

    def connection_lost(self, _: BaseException | None) -> None:
        self.transport.close()  # or Python 3.10 thinks that a TLS transport is still open


class Raises(Once):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.close()  # asyncio's own servers do not
        raise LookupError


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.write(await reader.read(4))
        writer.close()
        await writer.wait_closed()


async def close_and_raise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    raise LookupError


@each_case
@pytest.mark.parametrize("kind", ["create_server", "start_server", "open_streams"])
async def test_a_connection_leaves_no_garbage(
    listener: Listener, tls_contexts: Contexts, kind: str, tls: bool, end: str
) -> None:
    contexts = tls_contexts if tls else None
    left = await garbage(served_by(listener, kind, contexts, end), V2, contexts, end)
    assert_no_more(left, await garbage(bare(kind, contexts, end), b"", contexts, end))


@on_asyncio
@each_case
@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_a_connection_of_asyncios_own_server_leaves_no_more_garbage(
    listener: Listener, tls_contexts: Contexts, kind: str, tls: bool, end: str
) -> None:
    contexts = tls_contexts if tls else None
    left = await garbage(bare(kind, contexts, end, sock=listener), V2, contexts, end)
    assert_no_more(left, await garbage(bare(kind, contexts, end), b"", contexts, end))


async def test_a_socket_leaves_no_garbage(listener: Listener) -> None:
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        async for conn in listener:
            with conn:
                await loop.sock_sendall(conn, await loop.sock_recv(conn, 4))

    left = await garbage(running(serve(), listener), V2, None, "served")
    assert not left


def assert_no_more(left: collections.Counter[str], of_the_loops: collections.Counter[str]) -> None:
    allowed = of_the_loops.total() + OF_OURS if of_the_loops else 0
    assert left.total() <= allowed, (left, of_the_loops)


async def garbage(
    server: contextlib.AbstractAsyncContextManager[Any],
    header: bytes,
    contexts: Contexts | None,
    end: str,
) -> collections.Counter[str]:
    """Return the types of the objects that each connection leaves to the collector."""
    loop = asyncio.get_running_loop()
    loop.set_debug(False)  # it keeps tracebacks
    loop.set_exception_handler(lambda _loop, _context: None)
    async with server as address:
        context = None if contexts is None else contexts[1]
        await asyncio.to_thread(be_clients, address, header, context, end)  # what is left once
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await asyncio.to_thread(be_clients, address, header, context, end)
            for _ in range(5):  # the server's last callbacks
                await asyncio.sleep(0)
            gc.collect()
            found = collections.Counter(type(thing).__name__ for thing in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    return collections.Counter({name: n // CLIENTS for name, n in found.items() if n >= CLIENTS})


def be_clients(address: Any, header: bytes, context: ssl.SSLContext | None, end: str) -> None:
    """Connect, and wait for the end of the connection, once for each client."""
    for _ in range(CLIENTS):
        with Peer(address) as peer:
            if end == "handshake fails":
                peer.send(header + b"GET / HTTP/1.1\r\n\r\n")
            elif end == "handshake is cut":
                peer.send(header + b"\x16\x03\x01")
                peer.end()
            elif context is None:
                peer.send(header + b"ping")
            else:
                with contextlib.suppress(OSError):
                    tls = TlsPeer(peer, context, before=header)
                    tls.send(b"ping")
                    while tls.receive():
                        pass
                continue  # the server waits for this end to close
            peer.receive()


@contextlib.asynccontextmanager
async def served_by(listener: Listener, kind: str, contexts: Contexts | None, end: str) -> AsyncIterator[Any]:
    protocol, handler = handlers(end)
    keywords: dict[str, Any] = {} if contexts is None else {"ssl": contexts[0]}
    if kind == "create_server":
        async with listener.create_server(protocol, **keywords):
            yield listener.getsockname()
    elif kind == "start_server":
        async with listener.start_server(handler, **keywords):
            yield listener.getsockname()
    else:

        async def serve() -> None:
            async for conn in listener:
                with contextlib.suppress(OSError, LookupError):
                    await handler(*await open_streams(conn, **keywords))

        async with running(serve(), listener) as address:
            yield address


@contextlib.asynccontextmanager
async def bare(
    kind: str, contexts: Contexts | None, end: str, sock: Listener | None = None
) -> AsyncIterator[Any]:
    """A server of the loop itself."""
    protocol, handler = handlers(end)
    # With an address uvloop would ask a resolver, on threads that libuv keeps.
    keywords: dict[str, Any] = {"sock": socket.create_server(("127.0.0.1", 0)) if sock is None else sock}
    keywords["ssl"] = None if contexts is None else contexts[0]
    if kind == "create_server":
        server = await asyncio.get_running_loop().create_server(protocol, **keywords)
    else:
        server = await asyncio.start_server(handler, **keywords)
    async with server:
        yield server.sockets[0].getsockname()


@contextlib.asynccontextmanager
async def running(serve: Coroutine[Any, Any, None], listener: Listener) -> AsyncIterator[Any]:
    task = asyncio.create_task(serve)
    yield listener.getsockname()
    listener.close()
    await task


def handlers(end: str) -> tuple[Callable[[], Once], Handler]:
    return (Raises, close_and_raise) if end == "handler raises" else (Once, answer_once)
