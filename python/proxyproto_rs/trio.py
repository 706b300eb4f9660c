"""trio on a Listener: a server, a listener for `trio.serve_listeners`, and streams that know the client.

Typical use::

    async def handler(stream):
        host, port = stream.getpeername()[:2]
        async for data in stream:
            await stream.send_all(data)

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        trio.run(serve_trio, handler, listener)

``async for conn in listener`` works on trio too, and `ProxiedStream` makes a stream of what it gives.
"""

from __future__ import annotations

import socket
from typing import Any

try:
    import trio
except ImportError as missing:
    raise ImportError("proxyproto_rs.trio needs trio: pip install trio", name="trio") from missing
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

    It ends when the Listener is closed or drained, and the handlers have ended. What a handler raises ends it too, as
    in trio, so a handler deals with the `trio.BrokenResourceError` of a client that is gone.

    Args:
        handler: Called with a `ProxiedStream`; with `ssl_context`, with a `trio.SSLStream` on one.
        listener: It is closed in the end.
        ssl_context: If given, TLS is negotiated behind the header.
        https_compatible: As in `trio.SSLStream`.
        handler_nursery: Where the handlers run, if not in a nursery of this function.
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
    """A connection as a stream: what `trio.SocketStream` is, with the client's address.

    Attributes:
        socket: trio's socket. Its own `getpeername` is the proxy's.
        header: The `Header`; None where the peer was served without one.
        proxy_peername: The TCP connection's other end, which is the proxy, in the socket module's shape.
        proxy_sockname: The TCP connection's own end.
    """

    def __init__(self, conn: ProxiedSocket) -> None:
        """Take over a connection."""
        self.header: Header | None = conn.header
        self.proxy_peername, self.proxy_sockname = conn.proxy_peername, conn.proxy_sockname
        self._peername, self._sockname = conn.getpeername(), conn.getsockname()
        self._conn = conn
        # trio takes no subclass of a socket.
        plain = socket.socket(conn.family, conn.type, conn.proto, fileno=conn.detach(keep_place=True))
        self.socket = trio.socket.from_stdlib_socket(plain)
        self._stream = trio.SocketStream(self.socket)

    def getpeername(self) -> Any:
        """Return the client's address, in the socket module's shape."""
        return self._peername

    def getsockname(self) -> Any:
        """Return the address the client connected to."""
        return self._sockname

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there; b"" at the end."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        """Say that there is no more to come."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it, and give the client's place back."""
        try:
            await self._stream.aclose()
        finally:
            self._conn.close()


class SocketListener(trio.abc.Listener[ProxiedStream]):
    """A Listener for `trio.serve_listeners` and `trio.SSLListener`."""

    def __init__(self, listener: Listener) -> None:
        """Serve it; it is closed with this."""
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
