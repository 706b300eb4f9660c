"""create_server and start_server: one server on all addresses of one host or of several."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ._annotations import Unpack
from ._listener import Listener
from ._loops import serve
from ._loops.protocol import ClientConnected, ProtocolFactory
from ._loops.serve import STREAM_LIMIT
from ._loops.server import DRAIN_TIMEOUT, Server, Tls
from ._loops.starting import StartingServer
from ._options import BindOptions, check_names

__all__ = ["create_server", "start_server"]


def create_server(
    protocol_factory: ProtocolFactory,
    host: str | Iterable[str] | None,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    drain_timeout: float | None = DRAIN_TIMEOUT,
    **options: Unpack[BindOptions],
) -> StartingServer:
    """Listen on every address of one host or of several, and serve them all on the running loop.

    Typical use::

        async with create_server(Protocol, ["10.0.0.1", "fd00::1"], 8000, trusted=["10.0.0.0/8"]) as server:
            await server.serve_forever()

    It makes a `Listener` for each address; `Server.listeners` holds them. They share the lists `trusted`, `allow` and
    `deny`. Limits hold for each Listener alone, but a `ClientLimits` counts a client over all of them.

    Args:
        protocol_factory: As in `loop.create_server`.
        host: An address, a name, or several of these. "" or None is every address of both families. A name may have
            addresses that this machine lacks; they are left out.
        port: 0 lets the system choose a port for each address.
        ssl: If given, the TLS handshake follows the header.
        ssl_handshake_timeout: Seconds for the handshake; None is 60.
        ssl_shutdown_timeout: Seconds for the closing handshake; None is 30. It needs Python 3.11, or uvloop.
        start_serving: False waits for `Server.start_serving`.
        drain_timeout: Seconds that `Server.serve_forever` waits for the clients after a drain; None waits for ever.
        options: The keywords of `Listener`.

    Raises:
        TypeError: An option is unknown, or a value has a wrong type.
        ValueError: A value is not allowed, or there is no host.
        OverflowError: `port` is not a port.
        OSError: A name cannot be resolved, or an address cannot be bound. Then nothing is left open.
    """
    check_names(create_server, options, BindOptions)
    security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)

    def make_server(listeners: Iterable[Listener]) -> Awaitable[Server]:
        return serve.create_server(listeners, protocol_factory, security, start_serving, drain_timeout)

    return StartingServer(_serve(host, port, {**options}, make_server), create_server)


def start_server(
    client_connected_cb: ClientConnected,
    host: str | Iterable[str] | None,
    port: int,
    *,
    limit: int = STREAM_LIMIT,
    ssl: tls.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    drain_timeout: float | None = DRAIN_TIMEOUT,
    **options: Unpack[BindOptions],
) -> StartingServer:
    """Do what `create_server` does, with streams in place of protocols.

    Typical use::

        async def handle(reader, writer):
            host, port = writer.get_extra_info("peername")[:2]  # the client's
            ...

        async with start_server(handle, "localhost", 8000, trusted=["127.0.0.1", "::1"]) as server:
            await server.serve_forever()

    Args:
        client_connected_cb: As in `asyncio.start_server`.
        host: An address, a name, or several of these, as in `create_server`.
        port: 0 lets the system choose a port for each address.
        limit: The buffer of each reader, in bytes.
        ssl: If given, the TLS handshake follows the header.
        ssl_handshake_timeout: Seconds for the handshake; None is 60.
        ssl_shutdown_timeout: Seconds for the closing handshake; None is 30. It needs Python 3.11, or uvloop.
        start_serving: False waits for `Server.start_serving`.
        drain_timeout: Seconds that `Server.serve_forever` waits for the clients after a drain; None waits for ever.
        options: The keywords of `Listener`.

    Raises:
        TypeError: An option is unknown, or a value has a wrong type.
        ValueError: A value is not allowed, or there is no host.
        OverflowError: `port` is not a port.
        OSError: A name cannot be resolved, or an address cannot be bound. Then nothing is left open.
    """
    check_names(start_server, options, BindOptions)
    security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)

    def make_server(listeners: Iterable[Listener]) -> Awaitable[Server]:
        return serve.start_server(
            listeners, client_connected_cb, limit, security, start_serving, drain_timeout
        )

    return StartingServer(_serve(host, port, {**options}, make_server), start_server)


async def _serve(
    host: str | Iterable[str] | None,
    port: int,
    options: dict[str, Any],
    make_server: Callable[[Iterable[Listener]], Awaitable[Server]],
) -> Server:
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    if not hosts:
        raise ValueError("host must be one host or more, not none")
    addresses = [await _resolve(each) for each in hosts]
    with contextlib.ExitStack() as undo:
        listeners: dict[str | None, Listener] = {}
        for of_one_host in addresses:
            missing: OSError | None = None
            for address in of_one_host:
                if address in listeners:
                    continue
                try:
                    listener = Listener(address, port, **options)
                except OSError as error:
                    if error.errno not in _MISSING:
                        raise
                    missing = error
                    continue
                listeners[address] = undo.enter_context(listener)
                # An iterator can be read only once, and each copy of a long list would take its memory.
                options = {**options, **{name: listener.options[name] for name in _ITERABLES}}
            if missing is not None and listeners.keys().isdisjoint(of_one_host):
                raise missing
        server = await make_server(listeners.values())
        undo.pop_all()
    return server


async def _resolve(host: str | None) -> list[str | None]:
    """Return the addresses of a host, without blocking the loop."""
    if not host:
        return [None]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # it is a name
        found = await asyncio.to_thread(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    # With the interface of a link-local address.
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [socket.getnameinfo(address, numeric)[0] for *_, address in found]


_ITERABLES = ("trusted", "allow", "deny", "versions")
# The kernel's answers where the machine has no such address, or no such family.
_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
