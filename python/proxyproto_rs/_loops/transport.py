"""A transport and a stream writer around those of a loop that does not know about proxies, and what it has as sockets."""

from __future__ import annotations

import asyncio
import socket
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any

from .._proxied_socket import ProxiedSocket
from .facts import proxy_sockname

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from .._core import Connection, Header


class SocketStandIn:
    """What uvloop is given in place of a socket: it wants the number of an fd, and to close that itself.

    A socket object costs 1.2 us and a system call to make, and again to take apart when uvloop has closed its fd.
    This has of a socket what `connect_accepted_socket` looks at.
    """

    __slots__ = ("__weakref__", "connection", "ended", "family", "fileno", "transport", "waiter")

    ended: Callable[[SocketStandIn], None]
    transport: asyncio.Transport | None
    waiter: asyncio.Future[Any] | None
    type = socket.SOCK_STREAM

    def __init__(self, connection: Connection, _proto: int) -> None:
        self.connection = connection
        self.family = connection.family
        # uvloop asks for it when it takes the fd, so what asks for it has the fd from then on.
        self.fileno = connection.give_to_loop

    def refused(self) -> None:
        """uvloop has raised: if it was given the fd, it has not taken it."""
        self.connection.close_given()
        self.close()

    def close(self) -> None:
        """Give the client's place back. uvloop calls this when it has closed the fd."""
        self.connection.close()
        self.ended(self)


AcceptedSocket = ProxiedSocket | SocketStandIn


class LentSocket:
    """What uvloop is given in place of a `ProxiedSocket`, which does not let uvloop make a transport of it."""

    __slots__ = ("_sock", "family", "fileno")

    type = socket.SOCK_STREAM

    def __init__(self, sock: ProxiedSocket) -> None:
        self._sock = sock
        self.family = sock.family
        self.fileno = sock.fileno

    def close(self) -> None:
        """Let the socket forget the fd, and give the client's place back. uvloop calls this when it has closed the fd."""
        self._sock.detach()


class WrappedTransport(asyncio.Transport):
    """The transport of another, with the client's addresses.

    It behaves as that transport does, with one exception: uvloop's own `loop.start_tls` accepts only uvloop's
    transports. `start_tls` of this class and of `proxyproto_rs.uvloop.Loop` do the same for it.
    """

    __slots__ = ("__weakref__", "_sock", "_transport", "write")

    # The transport's own, as it is called so often.
    write: Any

    def __init__(self, transport: asyncio.Transport, sock: AcceptedSocket) -> None:
        self._transport = transport
        self._sock = sock
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport!r}>"

    def wraps(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this is around `transport`."""
        return self._transport is transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what `asyncio.BaseTransport.get_extra_info` does, and the proxy's facts beside it."""
        return extra_info(self._transport, self._sock, name, default)

    async def start_tls(
        self, protocol: asyncio.BaseProtocol, sslcontext: ssl.SSLContext, **keywords: Any
    ) -> WrappedTransport:
        """Do what `loop.start_tls` does with this transport. The result knows the client's addresses too."""
        loop = asyncio.get_running_loop()
        begun = await loop.start_tls(self._transport, protocol, sslcontext, **keywords)
        assert begun is not None
        return WrappedTransport(begun, self._sock)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self._transport.writelines(list_of_data)

    def write_eof(self) -> None:
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)


class WrappedStreamWriter(asyncio.StreamWriter):
    """A stream writer with the client's addresses; on a loop's own transport, so `start_tls` works."""

    _transport: asyncio.Transport
    _wrapped: WrappedTransport | None = None

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
        sock: AcceptedSocket,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._sock = sock

    @property
    def transport(self) -> WrappedTransport:
        """The transport, with the same addresses; another one after `start_tls`."""
        wrapped = self._wrapped
        if wrapped is None or not wrapped.wraps(self._transport):
            self._wrapped = wrapped = WrappedTransport(self._transport, self._sock)
        return wrapped

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport's `get_extra_info` does."""
        return extra_info(self._transport, self._sock, name, default)


class ClientSocket:
    """uvloop's own view of a connection as a socket, with the client's addresses; a `TransportSocket` shows it."""

    __slots__ = ("_bare", "connection")

    def __init__(self, bare: Any, connection: Connection) -> None:
        self._bare = bare
        self.connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bare, name)

    @property
    def header(self) -> Header | None:
        """As a `ProxiedSocket` has it."""
        return self.connection.header

    def getpeername(self) -> Any:
        """As a `ProxiedSocket` does it."""
        peername = self.connection.peername
        return self._bare.getpeername() if peername is None else peername

    def getsockname(self) -> Any:
        """As a `ProxiedSocket` does it."""
        sockname = self.connection.sockname
        return self._bare.getsockname() if sockname is None else sockname


def extra_info(transport: asyncio.BaseTransport, sock: AcceptedSocket, name: str, default: Any) -> Any:
    """Answer for `transport`, from the header where that says more than the kernel."""
    connection = sock.connection
    info: Any
    if name == "peername":
        info = _kernels(transport, name) if connection.peername is None else connection.peername
    elif name == "sockname":
        info = _kernels(transport, name) if connection.sockname is None else connection.sockname
    elif name == "proxy_header":
        info = connection.header
    elif name == "proxy_peername":
        info = connection.proxy_peername
    elif name == "proxy_sockname":
        info = proxy_sockname(sock) if isinstance(sock, ProxiedSocket) else _kernels(transport, "sockname")
    elif name == "socket":
        info = _socket(transport, sock)
    else:
        return transport.get_extra_info(name, default)
    return default if info is None else info


def _socket(transport: asyncio.BaseTransport, sock: AcceptedSocket) -> TransportSocket | None:
    """Return the socket as asyncio shows it; None if nobody asked for it before the connection was closed."""
    if isinstance(sock, ProxiedSocket):
        return TransportSocket(sock)
    bare = transport.get_extra_info("socket")
    if bare is None:
        return None
    # No `socket.socket`, but it has what a TransportSocket calls.
    client: Any = ClientSocket(bare, sock.connection)
    return TransportSocket(client)


def _kernels(transport: asyncio.BaseTransport, name: str) -> Any:
    """Return an address as the loop has it from the kernel; None if uvloop cannot tell."""
    try:
        return transport.get_extra_info(name)
    except (AttributeError, OSError, ValueError):  # of a UNIX socket that is closed
        return None
