"""Connections on uvloop, and on any loop of which we know no more than `connect_accepted_socket`.

uvloop asks the kernel for a connection's addresses, and its transports can neither be told better nor be
subclassed. So protocols get one of ours around them, and stream writers look past them.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from .._proxied_socket import ProxiedSocket
from .server import Server
from .transport import SocketStandIn, WrappedTransport
from .which import runs_uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable

    from .._core import Connection
    from .._listening_socket import ListeningSocket
    from .server import Tls
    from .transport import AcceptedSocket


def connect(
    loop: asyncio.AbstractEventLoop, sock: ProxiedSocket, protocol: asyncio.BaseProtocol, tls: Tls | None
) -> Coroutine[Any, Any, tuple[Any, asyncio.BaseProtocol]]:
    """Call `loop.connect_accepted_socket`."""
    return loop.connect_accepted_socket(lambda: protocol, sock, **_tls_keywords(tls))


def _tls_keywords(tls: Tls | None) -> dict[str, Any]:
    return {} if tls is None else {"ssl": tls.context, **tls.timeouts()}


class Introduction(asyncio.BaseProtocol):
    """Stands in for a protocol until there is a transport to wrap for it, and is then out of the way."""

    def __init__(self, protocol: asyncio.BaseProtocol, sock: AcceptedSocket) -> None:
        self._protocol = protocol
        self._sock = sock

    def connection_made(self, transport: Any) -> None:
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(WrappedTransport(transport, self._sock))


class ServedSocket(ProxiedSocket):
    """Tells its server when the loop has done with it."""

    __slots__ = ("ended", "transport")

    ended: Callable[[ServedSocket], None]
    transport: asyncio.BaseTransport | None

    def refused(self) -> None:
        """The loop has raised."""
        self.close()

    def give_back(self) -> None:
        super().give_back()
        self.ended(self)


Served = ServedSocket | SocketStandIn


class WrappedServer(Server):
    """Serves through `connect_accepted_socket`, without a task for each connection.

    A task would cost a seventh more of the loop's time (uvloop, CPython 3.11: 29 us a connection, not 25).
    """

    def __init__(
        self,
        listeners: Iterable[ListeningSocket],
        loop: asyncio.AbstractEventLoop,
        make_protocol: Callable[[AcceptedSocket], asyncio.BaseProtocol],
        tls: Tls | None,
    ) -> None:
        super().__init__(listeners, loop)
        self._socket_class: type[Served] = SocketStandIn if runs_uvloop() else ServedSocket
        self._make_protocol = make_protocol
        self._keywords = _tls_keywords(tls)
        self._open: set[Served] = set()
        self._connecting: list[tuple[Served, Coroutine[Any, Any, Any], asyncio.Future[Any]]] = []

    def _make_socket(self, connection: Connection, proto: int) -> Served:
        return self._socket_class(connection, proto)

    def _accept(self, listener: ListeningSocket) -> None:
        try:
            super()._accept(listener)
        finally:
            # Loops are first in, first out: when this runs, `connection_made` has run for the whole batch.
            if self._connecting:
                self._loop.call_soon(self._continue)

    def _serve(self, sock: Any) -> None:
        sock.ended = self._ended
        sock.transport = None
        self._open.add(sock)
        protocol = None
        try:
            protocol = self._make_protocol(sock)
            coroutine = self._loop.connect_accepted_socket(lambda: protocol, sock, **self._keywords)
            try:
                awaited = coroutine.send(None)
            except StopIteration as returned:
                sock.transport = returned.value[0]
            else:
                self._connecting.append((sock, coroutine, awaited))
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            sock.refused()
            self._report("Error on transport creation for incoming connection", error, protocol=protocol)

    def _continue(self) -> None:
        batch, self._connecting = self._connecting, []
        for sock, coroutine, awaited in batch:
            self._run(sock, coroutine, awaited)

    def _run(self, sock: Served, coroutine: Coroutine[Any, Any, Any], awaited: asyncio.Future[Any]) -> None:
        """Run what `connect_accepted_socket` returned, as a task would, whenever what it awaits is done."""
        try:
            while awaited.done():
                awaited = coroutine.send(None)
        except StopIteration as returned:
            sock.transport = returned.value[0]
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            self._failed(sock, error)
        else:
            awaited.add_done_callback(functools.partial(self._run, sock, coroutine))

    def _ended(self, sock: Served) -> None:
        self._open.discard(sock)
        if self._closed:
            self._wake_up_if_done()

    def _failed(self, sock: Served, error: BaseException) -> None:
        sock.close()
        # Strangers can make TLS handshakes fail at will, so asyncio tells of them in debug mode only.
        if self._loop.get_debug():
            self._report("Error on transport creation for incoming connection", error)

    def _has_clients(self) -> bool:
        return bool(self._open)

    def _clients(self) -> Collection[Any]:
        return [sock.transport for sock in self._open if sock.transport is not None]
