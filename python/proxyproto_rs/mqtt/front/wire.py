"""The byte stream of one client as an asyncio protocol, with bounded buffers in both directions.

It knows nothing about MQTT. A `codec` (WebSocket) may stand between the transport and the buffer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol

from ..model.session_record import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOSE_GRACE = 2.0  # seconds for the last bytes to leave; a peer that does not read is then cut off


class Codec(Protocol):
    """Converts between frames on the transport and the bytes of MQTT. No method raises for what a peer sent."""

    over: bool
    """The peer has said goodbye or broken a rule, so nothing more will come."""

    def decode(self, data: bytes) -> bytes:
        """Return the payload of received bytes."""

    def replies(self) -> bytes:
        """Return what the codec itself wants to send after `decode`."""

    def encode(self, data: bytes) -> bytes:
        """Return the bytes to send for a payload."""

    def close(self) -> bytes:
        """Return bytes that say goodbye, or b"" if they were sent already."""


class Wire(asyncio.Protocol):
    """One client's bytes.

    `buffer` holds the bytes that were received and not yet taken. Above `read_limit` bytes, reading stops
    until `take` makes room. One task at a time may wait in `more`.
    """

    __slots__ = (
        "_connected",
        "_limit",
        "_lost",
        "_reading",
        "_transport",
        "_waiter",
        "_writers",
        "buffer",
        "codec",
        "eof",
        "loop",
        "traffic",
        "writable",
    )

    def __init__(self, connected: Callable[[Wire], None], read_limit: int) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.buffer: bytearray = bytearray()
        self.traffic: Traffic = Traffic()
        self.codec: Codec | None = None
        self.eof: bool = False
        """Nothing more will come."""
        self._connected = connected
        self._limit = read_limit
        self._transport: Any = None
        self.writable: bool = True
        """False while the peer takes less than we write."""
        self._reading = True
        self._waiter: asyncio.Future[None] | None = None
        self._writers: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.traffic.last_received = self.loop.time()
        self._connected(self)

    def data_received(self, data: bytes) -> None:
        self.traffic.bytes_in += len(data)
        self.traffic.last_received = self.loop.time()
        self.buffer += data if self.codec is None else self._decode(data)
        if self._reading and len(self.buffer) >= self._limit:
            self._reading = False
            self._transport.pause_reading()
        self.wake()

    def eof_received(self) -> bool | None:
        self.eof = True
        self.wake()
        # A plain client that has closed only its sending side can still get an answer. With TLS it cannot.
        return self.extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._transport is None:  # after a failed TLS handshake this is called twice
            return
        self.eof = True
        self._transport.close()  # otherwise TLS of Python 3.10 does not know that it is closed
        self._transport = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        self.resume_writing()
        self.wake()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.wake_writers()

    # The gate calls these.

    @property
    def closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def reading(self) -> bool:
        """False while the buffer is full."""
        return self._reading

    def extra_info(self, name: str) -> Any:
        """Return the transport's `get_extra_info`; None when the connection is lost."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    @property
    def transport(self) -> Any:
        """The transport; None when the connection is lost."""
        return self._transport

    def switch(self, codec: Codec) -> None:
        """Treat all bytes from here on as frames of `codec`, with those that wait in the buffer."""
        self.codec = codec
        waiting = bytes(self.buffer)
        self.buffer.clear()
        self.buffer += self._decode(waiting)

    def hold(self) -> None:
        """Read nothing before `start_tls`. Call it in `connected`."""
        self._transport.pause_reading()

    async def start_tls(self, context: Any, timeout: float) -> None:
        """Do the server's side of the handshake, after `hold`. If `loop.start_tls` raises, the connection is gone.

        Call it before the task that `connected` has begun awaits anything.
        """
        plain = self._transport
        if sys.version_info < (3, 11):
            # asyncio starts reading after connection_made, whatever connection_made has said. No byte is
            # delivered before this task's first step, and these two calls stop the reading again.
            plain.resume_reading()
            plain.pause_reading()
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=timeout
            )
        except BaseException:
            plain.abort()
            self.connection_lost(None)  # asyncio does not always call it
            raise
        if transport is None:
            self.connection_lost(None)
            raise ConnectionResetError("closed during the handshake")
        self._transport = transport

    async def more(self) -> None:
        """Wait until `wake` is called: bytes have come, or the end."""
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the task that waits in `more` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, size: int) -> bytes:
        """Remove `size` bytes from the buffer, which must hold them."""
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        if not self._reading and len(self.buffer) < self._limit:
            self._reading = True
            if not self.closing:
                self._transport.resume_reading()
        return taken

    def write(self, data: bytes) -> None:
        """Send the bytes. They are dropped if the connection is closing."""
        if self.closing:
            return
        if self.codec is not None:
            data = self.codec.encode(data)
        self.traffic.bytes_out += len(data)
        self._transport.write(data)

    async def writable_again(self) -> None:
        """Wait until `wake_writers` is called: the peer has taken most of what was written, or the end has come."""
        if self._writers is None:
            self._writers = self.loop.create_future()
        await asyncio.shield(self._writers)

    def wake_writers(self) -> None:
        """Let the tasks that wait in `writable_again` look again."""
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.set_result(None)

    def abort(self) -> None:
        """Drop the connection and the unsent bytes."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close the connection and wait until its socket is closed. Unsent bytes get at most 2 seconds."""
        if self._transport is None:
            return
        if self.codec is not None and not self.closing:
            self._transport.write(self.codec.close())
        self._lost = self.loop.create_future()
        cut = self.loop.call_later(_CLOSE_GRACE, self._transport.abort)
        try:
            self._transport.close()
            await self._lost
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            cut.cancel()

    def _decode(self, data: bytes) -> bytes:
        assert self.codec is not None
        payload = self.codec.decode(data)
        if (replies := self.codec.replies()) and not self.closing:
            self.traffic.bytes_out += len(replies)
            self._transport.write(replies)
        if self.codec.over:
            self.eof = True
        return payload
