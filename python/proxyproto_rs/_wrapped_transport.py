"""A transport and a stream writer around those of a loop that does not know about proxies."""

from __future__ import annotations

import asyncio
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any

from ._extra_info import PROXY_FACTS, proxy_fact
from ._proxied_socket import ProxiedSocket
from ._socket_stand_in import ClientSocket, SocketStandIn

if TYPE_CHECKING:
    from collections.abc import Iterable

AcceptedSocket = ProxiedSocket | SocketStandIn


class WrappedTransport(asyncio.Transport):
    """The transport of another, with the client's addresses.

    It is that transport's in all but name, with one exception: uvloop's `start_tls` takes no transports but
    its own. Give it ``transport.get_extra_info("wrapped_transport")``.
    """

    __slots__ = ("_sock", "_transport", "write")

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

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what `asyncio.BaseTransport.get_extra_info` does, and the proxy's facts beside it."""
        return extra_info(self._transport, self._sock, name, default)

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
    _sock: AcceptedSocket

    @classmethod
    def of(cls, writer: asyncio.StreamWriter, sock: AcceptedSocket) -> WrappedStreamWriter:
        """Turn `writer` into one of these. Its protocol has made it, and knows it as the one it is."""
        writer.__class__ = cls
        assert isinstance(writer, cls)
        writer._sock = sock
        return writer

    @property
    def transport(self) -> WrappedTransport:
        """The transport, with the same addresses."""
        return WrappedTransport(self._transport, self._sock)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport's `get_extra_info` does."""
        return extra_info(self._transport, self._sock, name, default)


def extra_info(transport: asyncio.BaseTransport, sock: AcceptedSocket, name: str, default: Any) -> Any:
    """Answer for `transport`, from the header where that says more than the kernel."""
    if name in ("peername", "sockname"):
        address = getattr(sock._connection, name)
        return _kernels(transport, name, default) if address is None else address
    if name == "proxy_sockname" and isinstance(sock, SocketStandIn):
        return _kernels(transport, "sockname", default)
    if name in PROXY_FACTS:
        return proxy_fact(sock, name, default)
    if name == "socket":
        if isinstance(sock, ProxiedSocket):
            return TransportSocket(sock)
        bare = transport.get_extra_info("socket")
        if bare is None:  # asked for the first time when the connection is closed
            return default
        # Not a `socket.socket`, but all that a TransportSocket wants of one.
        client: Any = ClientSocket(bare, sock._connection)
        return TransportSocket(client)
    if name == "wrapped_transport":
        return transport
    return transport.get_extra_info(name, default)


def _kernels(transport: asyncio.BaseTransport, name: str, default: Any) -> Any:
    """Return an address as the loop has it from the kernel."""
    try:
        return transport.get_extra_info(name, default)
    except (AttributeError, OSError, ValueError):  # uvloop, of a UNIX socket that is closed
        return default
