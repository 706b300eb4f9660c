"""trio on a Listener: a server, a listener for `trio.serve_listeners`, and streams that know the client's address.

Typical use::

    async def handler(stream):
        host, port = stream.getpeername()[:2]
        async for data in stream:
            await stream.send_all(data)

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        trio.run(serve_trio, handler, listener)

``async for conn in listener`` works on trio too. ``ProxiedStream(conn)`` makes a stream of such a connection.
"""

from __future__ import annotations

import socket
from typing import Any

try:
    import trio
except ImportError as _missing:
    raise ImportError("proxyproto_rs.trio needs trio: pip install trio", name="trio") from _missing
import ssl
from collections.abc import Awaitable, Callable

from . import Header, Listener, ProxiedSocket

__all__ = ["ProxiedStream", "SocketListener", "serve_trio"]


async def serve_trio(
    handler: Callable[[Any], Awaitable[object]],
    listener: Listener,
    *,
    ssl_context: ssl.SSLContext | None = None,
    https_compatible: bool = False,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve each connection in a task of its own, as `trio.serve_listeners` does.

    It ends when the Listener is closed or drained and all handlers have ended. As in trio, an exception of a handler
    ends it too, so a handler must catch the `trio.BrokenResourceError` of a client that is gone.

    Args:
        handler: It is called with a `ProxiedStream`, or with a `trio.SSLStream` around one if `ssl_context` is given.
        listener: It is closed in the end.
        ssl_context: If given, the TLS handshake follows the header.
        https_compatible: As in `trio.SSLStream`.
        handler_nursery: The nursery for the handlers. None makes one in this function.
        task_status: For `Nursery.start`, which returns the Listener.
    """

    async def serve(stream: ProxiedStream) -> None:
        wrapped: Any = stream
        if ssl_context is not None:
            wrapped = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=https_compatible)
        try:
            await handler(wrapped)
        finally:
            await trio.aclose_forcefully(wrapped)

    async with trio.open_nursery() as nursery, SocketListener(listener) as serving:
        task_status.started(listener)
        while True:
            try:
                stream = await serving.accept()
            except trio.ClosedResourceError:
                return
            (handler_nursery or nursery).start_soon(serve, stream)


class ProxiedStream(trio.abc.HalfCloseableStream):
    """A connection as a stream, like `trio.SocketStream`, with the client's address.

    Attributes:
        socket: trio's socket. Its own `getpeername` returns the proxy's address.
        header: The `Header`, or None if the peer was served without one.
        proxy_peername: The proxy's address: the other end of the TCP connection, in the socket module's form.
        proxy_sockname: Our end of the TCP connection.
    """

    def __init__(self, conn: ProxiedSocket) -> None:
        """Take over a connection."""
        self.header: Header | None = conn.header
        self.proxy_peername: Any = conn.proxy_peername
        self.proxy_sockname: Any = conn.proxy_sockname
        self._peername, self._sockname = conn.getpeername(), conn.getsockname()
        self._conn = conn
        # trio takes no subclass of a socket.
        plain = socket.socket(conn.family, conn.type, conn.proto, fileno=conn.detach(keep_place=True))
        self.socket: trio.socket.SocketType = trio.socket.from_stdlib_socket(plain)
        self._stream = trio.SocketStream(self.socket)

    def getpeername(self) -> Any:
        """Return the client's address, in the socket module's form."""
        return self._peername

    def getsockname(self) -> Any:
        """Return the address that the client connected to."""
        return self._sockname

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all the data."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the bytes that are there; b"" at the end."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        """Tell the client that no more data follows."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection, and give the client's place back."""
        try:
            await self._stream.aclose()
        finally:
            self._conn.close()


class SocketListener(trio.abc.Listener[ProxiedStream]):
    """A Listener for `trio.serve_listeners` and `trio.SSLListener`."""

    def __init__(self, listener: Listener) -> None:
        """Take over a Listener, which `aclose` closes."""
        self.socket = listener

    async def accept(self) -> ProxiedStream:
        """Wait for a connection.

        Raises:
            trio.ClosedResourceError: The Listener is closed or drained.
        """
        try:
            conn = await self.socket.__anext__()
        except StopAsyncIteration:
            raise trio.ClosedResourceError from None
        return ProxiedStream(conn)

    async def aclose(self) -> None:
        """Close the Listener."""
        self.socket.close()
        await trio.lowlevel.checkpoint()
