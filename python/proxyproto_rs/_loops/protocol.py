"""What stands between a loop and the handler of a connection: it ends the connection if the handler fails."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from .._annotations import Self

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


class Introduction(asyncio.BaseProtocol):
    """Is the protocol of a connection until `connection_made`, which puts the real one in its place.

    If the real one raises, or is no protocol, nobody serves the connection. asyncio would read on, and uvloop would
    keep it open. With something that is no protocol both would keep half a transport.
    """

    __slots__ = ("protocol",)

    def __init__(self, protocol_factory: ProtocolFactory) -> None:
        """Introduce what `protocol_factory` returns."""
        self.protocol = protocol_factory()

    def connection_made(self, transport: Any) -> None:
        protocol = self.protocol
        try:
            made = protocol.connection_made
            transport.set_protocol(protocol)
            made(transport)
        except BaseException:
            transport.abort()
            raise


class StreamsProtocol(asyncio.StreamReaderProtocol):
    """asyncio's protocol of streams. If the handler fails, the connection ends, on every Python.

    Python 3.10 leaves it open, and so do 3.11 and 3.12 if the handler is cancelled. All of them leave it to the
    collector if the handler is a plain function.
    """

    # asyncio's own, which type checkers do not know.
    _client_connected_cb: ClientConnected | None
    _loop: asyncio.AbstractEventLoop
    _strong_reader: asyncio.StreamReader | None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, connected: ClientConnected, limit: int) -> Self:
        """Make the protocol of a connection that `connected` handles."""
        return cls(asyncio.StreamReader(limit=limit, loop=loop), connected, loop=loop)

    def connection_made(self, transport: Any) -> None:
        connected = self._client_connected_cb
        reader = self._strong_reader
        assert connected is not None
        assert reader is not None
        # Without the callback asyncio starts no handler. With it `start_tls` of the writer knows that this is a server.
        self._client_connected_cb = None
        super().connection_made(transport)
        self._client_connected_cb = connected
        self._strong_reader = None
        writer = self._make_writer(transport, reader)
        if sys.version_info < (3, 13):
            self._stream_writer = writer  # or it is collected, and closes the connection
        try:
            handler = connected(reader, writer)
            if asyncio.iscoroutine(handler):
                self._task = task = self._loop.create_task(handler)
                task.add_done_callback(functools.partial(_end_if_failed, self._loop, transport))
        except BaseException:
            transport.abort()
            raise

    def _make_writer(self, transport: Any, reader: asyncio.StreamReader) -> asyncio.StreamWriter:
        return asyncio.StreamWriter(transport, self, reader, self._loop)


def _end_if_failed(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, handler: asyncio.Task[None]
) -> None:
    """Do what asyncio of Python 3.13 does when a handler has ended."""
    if handler.cancelled():
        transport.close()
    elif (error := handler.exception()) is not None:
        message = "Unhandled exception in client_connected_cb"
        loop.call_exception_handler({"message": message, "exception": error, "transport": transport})
        transport.close()
