"""A Listener on an event loop: its servers, its connections as streams, and waiting for it.

On asyncio's selector loops transports are made of a `ProxiedSocket` as they are (`selector`); on uvloop
they are wrapped (`wrapped`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl as tls
import sys
from collections.abc import Iterable

from .._listening_socket import ListeningSocket
from .._proxied_socket import ProxiedSocket
from .._wake_fd import WakeFd
from . import selector, which, wrapped
from .protocol import ClientConnected, Introduction, ProtocolFactory, StreamsProtocol
from .server import Server, Tls

__all__ = ["open_streams", "open_transport"]

STREAM_LIMIT = 2**16  # asyncio's own


async def open_streams(
    conn: ProxiedSocket,
    *,
    limit: int = STREAM_LIMIT,
    ssl: tls.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a reader and a writer of an accepted connection, which belongs to them from then on.

    Typical use::

        async for conn in listener:
            reader, writer = await open_streams(conn)

    Args:
        conn: What `Listener.accept`, `try_accept` or ``async for`` gave.
        limit: The buffer of the reader, in bytes, as in `asyncio.start_server`.
        ssl: If given, TLS is negotiated first, as the server.
        ssl_handshake_timeout: Seconds the handshake may take; 60 unless given.
        ssl_shutdown_timeout: Seconds the closing handshake may take; 30 unless given. Python 3.11 or later,
            or uvloop.

    Raises:
        TypeError: `conn` is not a ProxiedSocket, or `ssl_shutdown_timeout` is not known.
        OSError: The TLS handshake failed (`ssl.SSLError` is one), or the peer is gone. The connection is
            closed, as it is by cancellation.
    """
    if not isinstance(conn, ProxiedSocket):
        raise TypeError(f"open_streams() wants a ProxiedSocket, not {type(conn).__name__}")
    security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    loop = _running_loop(security)
    # The protocol makes the writer, and with the callback it knows that it is a server's (for
    # `writer.start_tls`).
    made: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        conn.setblocking(False)
        if which.is_selector_loop(loop):
            protocol = StreamsProtocol.of(loop, lambda *streams: made.append(streams), limit)
            await selector.connect(loop, conn, protocol, security)
        else:
            protocol = wrapped.WrappedStreamsProtocol.on(
                conn, loop, lambda *streams: made.append(streams), limit
            )
            await wrapped.connect(loop, conn, protocol, security)
        return made[0]
    except BaseException:
        conn.close()
        raise
    finally:
        # The protocol keeps the callback, and with it the list.
        made.clear()


async def open_transport(
    conn: ProxiedSocket,
    protocol_factory: ProtocolFactory,
    *,
    ssl: tls.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """Make a transport and a protocol of an accepted connection, which belongs to them from then on.

    It does what `loop.connect_accepted_socket` does, on uvloop too, whose own transports would show the proxy's
    address as the client's.

    Typical use::

        async for conn in listener:
            transport, protocol = await open_transport(conn, Protocol)

    Args:
        conn: What `Listener.accept`, `try_accept` or ``async for`` gave.
        protocol_factory: As in `loop.create_server`.
        ssl: As in `open_streams`, like all that follow.
        ssl_handshake_timeout: Seconds the handshake may take; 60 unless given.
        ssl_shutdown_timeout: Seconds the closing handshake may take; 30 unless given.

    Raises:
        TypeError: `conn` is not a ProxiedSocket, or `ssl_shutdown_timeout` is not known.
        OSError: The TLS handshake failed, or the peer is gone. The connection is closed, as it is by cancellation.
    """
    if not isinstance(conn, ProxiedSocket):
        raise TypeError(f"open_transport() wants a ProxiedSocket, not {type(conn).__name__}")
    security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    loop = _running_loop(security)
    try:
        conn.setblocking(False)
        if which.is_selector_loop(loop):
            plain = Introduction(protocol_factory)
            return await selector.connect(loop, conn, plain, security), plain.protocol
        introduction = wrapped.KeepingIntroduction(protocol_factory, conn)
        await wrapped.connect(loop, conn, introduction, security)
        return introduction.transport, introduction.protocol
    except BaseException:
        conn.close()
        raise


async def create_server(
    listeners: Iterable[ListeningSocket],
    protocol_factory: ProtocolFactory,
    security: Tls | None,
    start_serving: bool,
    drain_timeout: float | None,
) -> Server:
    """Make the server for the running loop."""
    loop = _running_loop(security)
    server: Server
    if which.is_selector_loop(loop):
        server = selector.SelectorServer(
            listeners, loop, functools.partial(Introduction, protocol_factory), security
        )
    else:
        server = wrapped.WrappedServer(
            listeners, loop, functools.partial(wrapped.WrappedIntroduction, protocol_factory), security
        )
    return await _started(server, start_serving, drain_timeout)


async def start_server(
    listeners: Iterable[ListeningSocket],
    connected: ClientConnected,
    limit: int,
    security: Tls | None,
    start_serving: bool,
    drain_timeout: float | None,
) -> Server:
    """Make the server for the running loop."""
    loop = _running_loop(security)
    server: Server
    if which.is_selector_loop(loop):
        server = selector.SelectorServer(
            listeners, loop, lambda: StreamsProtocol.of(loop, connected, limit), security
        )
    else:
        server = wrapped.WrappedServer(
            listeners,
            loop,
            lambda sock: wrapped.WrappedStreamsProtocol.on(sock, loop, connected, limit),
            security,
        )
    return await _started(server, start_serving, drain_timeout)


async def checkpoint() -> None:
    """Let the loop turn once, of asyncio or of trio; cancellation arrives here."""
    if which.runs_trio():
        await sys.modules["trio"].lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


async def wait_readable(wake_fd: WakeFd) -> None:
    """Wait until there is something to take.

    Raises:
        OSError: The Listener is closed.
    """
    if which.runs_trio():
        with contextlib.closing(wake_fd.dup()) as own:  # trio lets one task at a time wait for an fd
            await sys.modules["trio"].lowlevel.wait_readable(own.fileno())
        return
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    own = wake_fd.dup()
    try:
        loop.add_reader(own.fileno(), _set_done, readable)
        try:
            await readable
        finally:
            loop.remove_reader(own.fileno())
    finally:
        own.close()


def _running_loop(security: Tls | None) -> asyncio.AbstractEventLoop:
    """Return the running loop, which has to know how to serve: the first connection is too late to find out."""
    loop = asyncio.get_running_loop()
    is_asyncio = isinstance(loop, asyncio.BaseEventLoop)
    if sys.version_info < (3, 11) and is_asyncio and security and security.shutdown_timeout is not None:
        raise TypeError("ssl_shutdown_timeout needs Python 3.11, or uvloop")
    if not which.takes_connections(loop):
        raise NotImplementedError(
            f"a {type(loop).__name__} cannot serve a Listener, because its connect_accepted_socket() is not implemented: "
            "use asyncio's own loop or uvloop"
        )
    return loop


async def _started(server: Server, start_serving: bool, drain_timeout: float | None) -> Server:
    server.drain_timeout = drain_timeout
    if start_serving:
        await server.start_serving()
    return server


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
