"""Connections on uvloop, and on any loop of which we know no more than `connect_accepted_socket`.

uvloop asks the kernel for a connection's addresses, and its transports can neither be told better nor be
subclassed. So protocols get one of ours around them, and stream writers look past them.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any

from .._proxied_socket import ProxiedSocket, serving
from .protocol import Introduction, StreamsProtocol
from .server import Server
from .transport import LentSocket, SocketStandIn, WrappedStreamWriter, WrappedTransport
from .which import runs_uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from .._annotations import Self
    from .._listening_socket import ListeningSocket
    from .protocol import ClientConnected, ProtocolFactory
    from .server import Tls
    from .transport import AcceptedSocket


def connect(
    loop: asyncio.AbstractEventLoop, sock: ProxiedSocket, protocol: asyncio.BaseProtocol, tls: Tls | None
) -> Coroutine[Any, Any, tuple[Any, asyncio.BaseProtocol]]:
    """Call `loop.connect_accepted_socket`."""
    # uvloop closes the fd itself, and wants of a socket what both have.
    given: Any = LentSocket(sock) if runs_uvloop() else sock
    return loop.connect_accepted_socket(lambda: protocol, given, **_tls_keywords(tls))


def _tls_keywords(tls: Tls | None) -> dict[str, Any]:
    return {} if tls is None else {"ssl": tls.context, **tls.timeouts()}


class WrappedIntroduction(Introduction):
    """Gives the protocol a transport that knows the client's addresses."""

    __slots__ = ("_sock",)

    def __init__(self, protocol_factory: ProtocolFactory, sock: AcceptedSocket) -> None:
        super().__init__(protocol_factory)
        self._sock = sock

    def connection_made(self, transport: Any) -> None:
        protocol = self.protocol
        try:
            made = protocol.connection_made
            transport.set_protocol(protocol)
            made(self._wrap(transport))
        except BaseException:
            transport.abort()
            raise

    def _wrap(self, transport: Any) -> WrappedTransport:
        return WrappedTransport(transport, self._sock)


class KeepingIntroduction(WrappedIntroduction):
    """Keeps the transport that the protocol got."""

    __slots__ = ("transport",)

    transport: WrappedTransport

    def _wrap(self, transport: Any) -> WrappedTransport:
        self.transport = super()._wrap(transport)
        return self.transport


class WrappedStreamsProtocol(StreamsProtocol):
    """Makes a writer that knows the client's addresses."""

    _sock: AcceptedSocket

    @classmethod
    def on(
        cls, sock: AcceptedSocket, loop: asyncio.AbstractEventLoop, connected: ClientConnected, limit: int
    ) -> Self:
        """Make the protocol of a connection that `connected` handles."""
        protocol = cls.of(loop, connected, limit)
        protocol._sock = sock
        return protocol

    def _make_writer(self, transport: Any, reader: asyncio.StreamReader) -> asyncio.StreamWriter:
        return WrappedStreamWriter(transport, self, reader, self._loop, self._sock)


class ServedSocket(ProxiedSocket):
    """Tells its server when the loop has done with it."""

    __slots__ = ("ended", "transport", "waiter")

    ended: Callable[[ServedSocket], None]
    transport: asyncio.Transport | None
    waiter: asyncio.Future[Any] | None

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
        super().__init__(listeners, loop, SocketStandIn if runs_uvloop() else ServedSocket)
        self._make_protocol = make_protocol
        self._keywords = _tls_keywords(tls)
        # Weak, or what everybody else has forgotten would never be collected and closed.
        self._open: dict[int, weakref.ref[Served]] = {}
        self._connecting: list[tuple[Served, Coroutine[Any, Any, Any]]] = []

    def close(self) -> None:
        if not self._closed:
            # The end of one that is collected counts as well, from here on. A callback costs too much before.
            self._open = {
                key: weakref.ref(sock, functools.partial(self._collected, key))
                for key, sock in self._living()
            }
        super().close()

    def _accept(self, listener: ListeningSocket) -> None:
        try:
            super()._accept(listener)
        finally:
            # Loops are first in, first out: when this runs, `connection_made` has run for the whole batch.
            if self._connecting:
                self._loop.call_soon(self._continue)

    def _serve(self, sock: Any) -> None:
        serving.set(sock.connection)
        sock.ended = self._ended
        sock.transport = sock.waiter = None
        self._open[id(sock)] = weakref.ref(sock)
        try:
            make_protocol = functools.partial(self._make_protocol, sock)
            coroutine = self._loop.connect_accepted_socket(make_protocol, sock, **self._keywords)
            try:
                sock.waiter = coroutine.send(None)
            except StopIteration as returned:
                sock.transport = returned.value[0]
            else:
                self._connecting.append((sock, coroutine))
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            sock.refused()
            self._report("Error on transport creation for incoming connection", error)

    def _continue(self) -> None:
        batch, self._connecting = self._connecting, []
        for sock, coroutine in batch:
            self._run(sock, coroutine)

    def _run(self, sock: Any, coroutine: Coroutine[Any, Any, Any], _: object = None) -> None:
        """Run what `connect_accepted_socket` returned, as a task would, whenever what it awaits is done."""
        try:
            while sock.waiter.done():
                sock.waiter = coroutine.send(None)
        except StopIteration as returned:
            sock.transport = returned.value[0]
            sock.waiter = None
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException as error:
            self._failed(sock, error)
        else:
            sock.waiter.add_done_callback(functools.partial(self._run, sock, coroutine))

    def _ended(self, sock: Served) -> None:
        self._open.pop(id(sock), None)
        if self._closed:
            self._wake_up_if_done()

    def _collected(self, key: int, _: object) -> None:
        self._open.pop(key, None)
        # The collector runs in any thread.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_up_if_done)

    def _failed(self, sock: Served, error: BaseException) -> None:
        sock.close()
        # Strangers can make TLS handshakes fail at will, so asyncio tells of them in debug mode only.
        if self._loop.get_debug() and not isinstance(error, asyncio.CancelledError):
            self._report("Error on transport creation for incoming connection", error)
        else:
            # It holds the frame that holds the waiter that holds the error.
            error.__traceback__ = None

    def _has_clients(self) -> bool:
        return bool(self._open)

    def _clients(self) -> list[Any]:
        return [
            Handshake(sock.waiter) if sock.transport is None else sock.transport for _, sock in self._living()
        ]

    def _living(self) -> list[tuple[int, Served]]:
        return [(key, sock) for key, reference in self._open.items() if (sock := reference()) is not None]


class Handshake:
    """A client whose TLS handshake is under way, for those who end clients."""

    def __init__(self, waiter: asyncio.Future[Any] | None) -> None:
        self._waiter = waiter

    def close(self) -> None:
        """End the connection at once: there is nothing to send."""
        if self._waiter is not None:
            self._waiter.cancel()

    abort = close
