"""Connections on uvloop, and on any loop of which we know no more than `connect_accepted_socket`.

uvloop asks the kernel for a connection's addresses, and its transports can neither be told better nor be
subclassed. So protocols get one of ours around them, and stream writers look past them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ._proxied_socket import ProxiedSocket
from ._server import Server
from ._wrapped_transport import WrappedTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from ._listener import Listener
    from ._tls import Tls


def connect(
    loop: asyncio.AbstractEventLoop, sock: ProxiedSocket, protocol: asyncio.BaseProtocol, tls: Tls | None
) -> Coroutine[Any, Any, tuple[Any, asyncio.BaseProtocol]]:
    """Call `loop.connect_accepted_socket`."""
    return loop.connect_accepted_socket(lambda: protocol, sock, **_tls_keywords(tls))


def _tls_keywords(tls: Tls | None) -> dict[str, Any]:
    return {} if tls is None else {"ssl": tls.context, **tls.timeouts()}


class Introduction(asyncio.BaseProtocol):
    """Stands in for a protocol until there is a transport to wrap for it, and is then out of the way."""

    def __init__(self, protocol: asyncio.BaseProtocol, sock: ProxiedSocket) -> None:
        self._protocol = protocol
        self._sock = sock

    def connection_made(self, transport: Any) -> None:
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(WrappedTransport(transport, self._sock))


class ServedSocket(ProxiedSocket):
    """Tells its server when the loop has done with it: uvloop detaches it as it closes the transport."""

    __slots__ = ("server",)

    server: WrappedServer

    def _give_back(self) -> None:
        super()._give_back()
        server = self.server
        server._open.pop(self, None)
        if server._listener is None:
            server._wake_up_if_done()


class WrappedServer(Server):
    """Serves through `connect_accepted_socket`, without a task for each connection.

    A task would cost a seventh more of the loop's time (uvloop, CPython 3.11: 29 us a connection, not 25).
    """

    _socket_class = ServedSocket

    def __init__(
        self,
        listener: Listener,
        loop: asyncio.AbstractEventLoop,
        make_protocol: Callable[[ProxiedSocket], asyncio.BaseProtocol],
        tls: Tls | None,
    ) -> None:
        super().__init__(listener, loop)
        self._make_protocol = make_protocol
        self._keywords = _tls_keywords(tls)
        self._open: dict[ProxiedSocket, Any] = {}
        self._connecting: list[_Connecting] = []

    def _accept(self, listener: Listener) -> None:
        try:
            super()._accept(listener)
        finally:
            # Loops are first in, first out: when this runs, `connection_made` has run for the whole batch.
            if self._connecting:
                self._loop.call_soon(self._continue)

    def _serve(self, sock: Any) -> None:
        sock.server = self
        self._open[sock] = None
        protocol = None
        try:
            protocol = self._make_protocol(sock)
            coroutine = self._loop.connect_accepted_socket(lambda: protocol, sock, **self._keywords)
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            sock.close()
            self._report("Error on transport creation for incoming connection", error, protocol=protocol)
        else:
            connecting = _Connecting(self, sock, coroutine)
            if not connecting.run():
                self._connecting.append(connecting)

    def _continue(self) -> None:
        batch, self._connecting = self._connecting, []
        for connecting in batch:
            connecting.run_when_ready()

    def _failed(self, sock: ProxiedSocket, error: BaseException) -> None:
        sock.close()
        # Strangers can make TLS handshakes fail at will, so asyncio tells of them in debug mode only.
        if self._loop.get_debug():
            self._report("Error on transport creation for incoming connection", error)

    def _has_clients(self) -> bool:
        return bool(self._open)

    def _clients(self) -> Collection[Any]:
        return [transport for transport in self._open.values() if transport is not None]


class _Connecting:
    """What `connect_accepted_socket` needs of a task: to be run on when what it awaits is done."""

    __slots__ = ("_awaited", "_coroutine", "_server", "_sock")

    def __init__(
        self, server: WrappedServer, sock: ProxiedSocket, coroutine: Coroutine[Any, Any, Any]
    ) -> None:
        self._server = server
        self._sock = sock
        self._coroutine = coroutine
        self._awaited: asyncio.Future[Any] | None = None

    def run(self) -> bool:
        """Run as far as nothing need be waited for; say whether that was to the end."""
        while self._awaited is None or self._awaited.done():
            try:
                self._awaited = self._coroutine.send(None)
            except StopIteration as returned:
                if self._sock in self._server._open:
                    self._server._open[self._sock] = returned.value[0]
                return True
            except (SystemExit, KeyboardInterrupt):
                self._sock.close()
                raise
            except BaseException as error:
                self._server._failed(self._sock, error)
                return True
        return False

    def run_when_ready(self, _: object = None) -> None:
        """Run to the end, waiting where it waits."""
        if not self.run():
            assert self._awaited is not None
            self._awaited.add_done_callback(self.run_when_ready)
