"""Connections on asyncio's selector loops, whose transports believe what a `ProxiedSocket` says of itself."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .._proxied_socket import ProxiedSocket, serving
from .facts import ExtraInfo
from .server import Server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from .._listening_socket import ListeningSocket
    from .server import Tls


def make_transport(
    loop: Any,
    sock: ProxiedSocket,
    protocol: asyncio.BaseProtocol,
    tls: Tls | None,
    waiter: asyncio.Future[None] | None,
    server: Server | None = None,
) -> asyncio.Transport:
    """Make what `loop.connect_accepted_socket` makes, without waiting until it is connected."""
    extra = ExtraInfo()
    extra.sock = sock
    transport: asyncio.Transport
    if tls is None:
        transport = loop._make_socket_transport(sock, protocol, waiter, extra=extra, server=server)
    else:
        transport = loop._make_ssl_transport(
            sock,
            protocol,
            tls.context,
            waiter,
            server_side=True,
            extra=extra,
            server=server,
            **tls.timeouts(),
        )
    return transport


async def connect(
    loop: asyncio.AbstractEventLoop, sock: ProxiedSocket, protocol: asyncio.BaseProtocol, tls: Tls | None
) -> asyncio.Transport:
    """Do what `loop.connect_accepted_socket` does, with our extra info."""
    waiter = loop.create_future()
    transport = make_transport(loop, sock, protocol, tls, waiter)
    try:
        await waiter
    except BaseException as error:
        transport.close()
        # The error would hold asyncio's frames and this one, which hold the error.
        del waiter
        raise error.with_traceback(None)  # noqa: B904 - it is the same error
    return transport


class SelectorServer(Server):
    """Makes the transports without a task for each, and without TLS not even a future.

    Those are what asyncio's own servers spend most on, after the protocol; `benches/accept.py` measures it.
    """

    def __init__(
        self,
        listeners: Iterable[ListeningSocket],
        loop: asyncio.AbstractEventLoop,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        tls: Tls | None,
    ) -> None:
        super().__init__(listeners, loop, ProxiedSocket)
        self._make_protocol = make_protocol
        self._tls = tls
        self._open = 0

    def _serve(self, sock: ProxiedSocket) -> None:
        serving.set(sock.connection)
        try:
            protocol = self._make_protocol()
            if self._tls is None:
                make_transport(self._loop, sock, protocol, None, None, self)
            else:
                waiter = self._loop.create_future()
                transport = make_transport(self._loop, sock, protocol, self._tls, waiter, self)
                waiter.add_done_callback(functools.partial(self._after_handshake, transport))
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            sock.close()
            self._report("Error on transport creation for incoming connection", error)

    def _after_handshake(self, transport: asyncio.Transport, waiter: asyncio.Future[None]) -> None:
        error = waiter.exception()
        if error is None:
            return
        transport.close()
        # Strangers can make handshakes fail at will, so asyncio tells of them in debug mode only.
        if self._loop.get_debug():
            self._report("Error on transport creation for incoming connection", error, transport=transport)
        else:
            # It holds frames of asyncio, which hold the error.
            error.__traceback__ = None

    def close(self) -> None:
        # Up to Python 3.12 a transport that is collected does not say that it goes.
        self._open = len(self._clients())
        super().close()

    def _attach(self, _: asyncio.BaseTransport | None = None) -> None:
        """A transport comes; from Python 3.13 on it says which."""
        self._open += 1

    def _detach(self, _: asyncio.BaseTransport | None = None) -> None:
        """A transport goes."""
        self._open -= 1
        if self._closed:
            self._wake_up_if_done()

    def _has_clients(self) -> bool:
        return self._open > 0

    def _clients(self) -> list[Any]:
        # A set of ours would cost at each connection what the loop's own costs only when it is asked.
        loop: Any = self._loop
        return [transport for transport in loop._transports.values() if transport._server is self]
