"""anyio on a Listener, on asyncio, uvloop and trio: a listener whose streams know the client's address.

Typical use::

    async def handle(stream):
        async with stream:
            host, port = stream.extra(SocketAttribute.remote_address)[:2]
            header = stream.extra(ProxyAttribute.header)

    async def main():
        with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
            await SocketListener(listener).serve(handle)

`anyio.streams.tls.TLSListener` takes a SocketListener too.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import Any

try:
    import anyio
    import anyio.abc
    import anyio.lowlevel
    from anyio.abc import SocketAttribute
except ImportError as _missing:
    raise ImportError("proxyproto_rs.anyio needs anyio: pip install anyio", name="anyio") from _missing
from collections.abc import Callable, Mapping

from anyio.abc import TaskGroup

from . import Header, Listener, ProxiedSocket

__all__ = ["ProxyAttribute", "SocketListener", "SocketStream"]


class ProxyAttribute(anyio.TypedAttributeSet):
    """The attributes of a stream of a Listener. It has those of `anyio.abc.SocketAttribute` too."""

    header: Header | None = anyio.typed_attribute()
    """The header, or None if the peer was served without one."""
    proxy_remote_address: Any = anyio.typed_attribute()
    """The proxy's address: the other end of the TCP connection."""
    proxy_local_address: Any = anyio.typed_attribute()
    """Our end of the TCP connection."""


class SocketStream(anyio.abc.SocketStream):
    """A connection as a stream of anyio's. Its remote address is the client's.

    Attributes:
        header: The `Header`, or None if the peer was served without one.
        proxy_peername: The proxy's address: the other end of the TCP connection.
    """

    _stream: anyio.abc.SocketStream

    def __init__(self, conn: ProxiedSocket) -> None:
        """Use `SocketStream.of`, which calls this and opens the stream."""
        self.header: Header | None = conn.header
        self.proxy_peername: Any = conn.proxy_peername
        self._conn = conn
        self._attributes = {
            ProxyAttribute.header: conn.header,
            ProxyAttribute.proxy_remote_address: _address(conn.proxy_peername),
            ProxyAttribute.proxy_local_address: _address(conn.proxy_sockname),
            **_ends("remote", conn.getpeername()),
            **_ends("local", conn.getsockname()),
        }

    @classmethod
    async def of(cls, conn: ProxiedSocket) -> SocketStream:
        """Take over a connection that came from `Listener.try_accept` or ``async for``."""
        stream = cls(conn)
        # Loops take no subclass of a socket, or ask the kernel for its addresses.
        plain = socket.socket(conn.family, conn.type, conn.proto, fileno=conn.detach(keep_place=True))
        try:
            stream._stream = await anyio.abc.SocketStream.from_socket(plain)
        except BaseException:
            plain.close()
            conn.close()
            raise
        return stream

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of the socket, and those of `ProxyAttribute`."""
        ours: dict[Any, Callable[[], Any]] = {
            name: functools.partial(_same, value) for name, value in self._attributes.items()
        }
        return {**self._stream.extra_attributes, **ours}

    @property
    def _raw_socket(self) -> socket.socket:
        raw: socket.socket = self.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
        return raw

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive the bytes that are there.

        Raises:
            anyio.EndOfStream: The client sends no more.
        """
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send all the data."""
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Tell the client that no more data follows."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection, and give the client's place back."""
        try:
            await self._stream.aclose()
        finally:
            self._conn.close()


class SocketListener(anyio.abc.SocketListener):
    """A Listener as a listener of anyio's."""

    def __init__(self, listener: Listener) -> None:
        """Take over a Listener, which `aclose` closes."""
        self._listener = listener

    @property
    def _raw_socket(self) -> socket.socket:
        return self._listener

    async def accept(self) -> SocketStream:
        """Wait for a connection.

        Raises:
            anyio.ClosedResourceError: The Listener is closed or drained.
        """
        try:
            conn = await self._listener.__anext__()
        except StopAsyncIteration:
            raise anyio.ClosedResourceError from None
        return await SocketStream.of(conn)

    async def serve(
        self, handler: Callable[[anyio.abc.SocketStream], Any], task_group: TaskGroup | None = None
    ) -> None:
        """Serve each connection in a task of its own.

        It ends when the Listener is closed or drained. Without `task_group` it waits for the handlers too.

        Args:
            handler: It is called with a `SocketStream`, and closes that.
            task_group: The task group for the handlers. None makes one in this method.
        """
        async with contextlib.AsyncExitStack() as stack:
            if task_group is None:
                task_group = await stack.enter_async_context(anyio.create_task_group())
            while True:
                try:
                    stream = await self.accept()
                except anyio.ClosedResourceError:
                    return
                task_group.start_soon(handler, stream)

    async def aclose(self) -> None:
        """Close the Listener."""
        self._listener.close()
        await anyio.lowlevel.checkpoint()


def _ends(side: str, address: Any) -> dict[Any, Any]:
    """Return the attributes of one end. A path has no port."""
    ends = {getattr(SocketAttribute, f"{side}_address"): _address(address)}
    if isinstance(address, tuple):
        ends[getattr(SocketAttribute, f"{side}_port")] = address[1]
    return ends


def _address(address: Any) -> Any:
    """Return an address as anyio writes it: the host and the port, for IPv6 too."""
    return address[:2] if isinstance(address, tuple) else address


def _same(value: Any) -> Any:
    return value
