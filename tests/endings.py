"""How a connection can end before or while its handler starts: one table for every way of serving.

Whatever happens, the server gives everything back at once: the fd, the client's place, the task. And it can be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import leaks
from peers import V2, Peer, connected, turn_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from proxyproto_rs import Listener

CLIENTS = 3
SOON = 5.0  # seconds, many times what any of this takes


class Failure(Exception):
    """What the handlers of these tests raise."""


class Quiet(asyncio.Protocol):
    """Does nothing, and so waits until its client goes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, _: BaseException | None) -> None:
        self.transport.close()  # or Python 3.10 thinks that a TLS transport is still open


class Raises(Quiet):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        raise Failure


class RaisesAtTheEndToo(Raises):
    def connection_lost(self, _: BaseException | None) -> None:
        raise Failure


class ClosesAndRaises(Quiet):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.close()
        raise Failure


class Closes(Quiet):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.close()


class Aborts(Quiet):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.abort()


def failing_factory() -> Any:
    raise Failure


def factory_of_nothing() -> Any:
    return None


def plain_failure(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    raise Failure


async def failure_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    raise Failure


async def failure_later(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0)
    raise Failure


async def cancelled(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def reads_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


@dataclass(frozen=True)
class Ending:
    """One way to end. Where the server is the one to end it, the client stays and waits."""

    name: str
    factory: Callable[[], Any] | None = None
    """What `create_server` gets."""
    callback: Callable[[Any, Any], Any] | None = None
    """What `start_server` gets."""
    client: str = "waits"
    """What the client does. "gone": it has left before the server looks. The last four are about the TLS handshake."""
    tls: tuple[bool, ...] = (False, True)
    asyncio_collects: bool = False
    """asyncio's own server, of some Pythons, leaves the connection to the collector, or for a while to the client."""
    errors: int = 0
    """How many errors the loop is told of for each client, at most; and at least one unless it is none."""


ENDINGS = [
    Ending("factory raises", failing_factory, errors=1),
    Ending("factory returns None", factory_of_nothing, asyncio_collects=True, errors=1),
    Ending("factory returns no protocol", object, asyncio_collects=True, errors=1),
    Ending("connection_made raises", Raises, errors=1),
    Ending("both raise", RaisesAtTheEndToo, errors=2),
    Ending("connection_made closes and raises", ClosesAndRaises, errors=1),
    Ending("connection_made closes", Closes),
    Ending("connection_made aborts", Aborts),
    Ending("callback raises", callback=plain_failure, asyncio_collects=True, errors=1),
    Ending("coroutine raises at once", callback=failure_at_once, asyncio_collects=True, errors=1),
    Ending("coroutine raises later", callback=failure_later, asyncio_collects=True, errors=1),
    Ending("coroutine cancelled", callback=cancelled, asyncio_collects=True),
    Ending("client gone, protocol", Quiet, client="gone"),
    Ending("client gone, streams", callback=reads_to_the_end, client="gone"),
    Ending("client leaves, protocol", Quiet, client="leaves"),
    Ending("client leaves, streams", callback=reads_to_the_end, client="leaves"),
    Ending("client reset, protocol", Quiet, client="resets"),
    Ending("client reset, streams", callback=reads_to_the_end, client="resets"),
    Ending("handshake fails, protocol", Quiet, client="nonsense", tls=(True,)),
    Ending("handshake fails, streams", callback=reads_to_the_end, client="nonsense", tls=(True,)),
    Ending("handshake is cut, protocol", Quiet, client="half", tls=(True,)),
    Ending("handshake is cut, streams", callback=reads_to_the_end, client="half", tls=(True,)),
    Ending("handshake is reset, protocol", Quiet, client="half-resets", tls=(True,)),
    Ending("handshake is reset, streams", callback=reads_to_the_end, client="half-resets", tls=(True,)),
    Ending("handshake takes too long, protocol", Quiet, client="silent", tls=(True,)),
    Ending("handshake takes too long, streams", callback=reads_to_the_end, client="silent", tls=(True,)),
]


def cases() -> list[tuple[str, Ending, bool]]:
    """The table, each row plain and with TLS: an id, the row, and whether with TLS."""
    return [
        (f"{ending.name}-{'tls' if tls else 'plain'}", ending, tls)
        for ending in ENDINGS
        for tls in ending.tls
    ]


async def run_through(
    listener: Listener,
    ending: Ending,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None,
    serve: Callable[[Ending, dict[str, Any]], Awaitable[Any]],
    *,
    clients_leave: bool = False,
    collect: bool = False,
) -> None:
    """Serve a few clients, each of which ends this way; then see that nothing is left and that the server ends.

    With `clients_leave` it need not be the server that ends the connection. With `collect` it need not come back
    before the collector does.
    """
    context = None
    keywords: dict[str, Any] = {}
    if contexts is not None:
        keywords["ssl"], context = contexts
        if ending.client == "silent":
            keywords["ssl_handshake_timeout"] = 0.05
    with _without_collector():
        before = _sockets()
        clients: list[asyncio.Task[None]] = []
        if ending.client == "gone":
            for _ in range(CLIENTS):
                Peer(listener.getsockname(), V2).sock.close()
            await _soon(lambda: listener.stats().ready == CLIENTS)
        server = await serve(ending, keywords)
        if ending.client != "gone":
            clients = [asyncio.create_task(_client(ending.client, server, context)) for _ in range(CLIENTS)]
        await _soon(lambda: listener.stats().accepted == CLIENTS)
        if clients_leave:
            for client in clients:
                client.cancel()
        if collect:
            await _soon(lambda: gc.collect() >= 0 and listener.stats().open == 0)
        await asyncio.wait_for(asyncio.gather(*clients, return_exceptions=True), SOON)
        await _soon(lambda: listener.stats().open == 0)
        await _soon(lambda: _sockets() == before)
        assert server.is_serving()
        server.close()
        if not collect:  # asyncio's server of Python 3.12 still counts what was collected
            await asyncio.wait_for(server.wait_closed(), SOON)
        tasks = {asyncio.current_task()}
        await _soon(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()})


async def _soon(condition: Callable[[], bool]) -> None:
    await asyncio.wait_for(turn_until(condition), SOON)


async def _client(how: str, server: Any, context: ssl.SSLContext | None) -> None:
    """Do as the table says, and return when the connection has ended."""
    address = server.sockets[0].getsockname()
    if how in ("waits", "leaves", "resets"):
        keywords = {} if context is None else {"ssl": context, "server_hostname": "localhost"}
        with contextlib.suppress(OSError):
            async with connected(address, V2, **keywords) as (reader, writer):
                if how == "waits":
                    await reader.read()
                elif how == "resets":
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    writer.transport.abort()
        return
    assert context is not None
    with Peer(address, V2) as peer:
        if how == "nonsense":
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
        elif how != "silent":
            hello = _client_hello(context)
            peer.send(hello[: len(hello) // 2])
            if how == "half-resets":
                peer.reset()
                return
            peer.end()
        peer.sock.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.get_running_loop().sock_recv(peer.sock, 65536):
                pass


def _sockets() -> set[str]:
    return {name for name in leaks.open_files().values() if name.startswith("socket:")}


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """What comes back now comes back without the collector."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
