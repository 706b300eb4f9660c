"""The byte stream of one client as an asyncio protocol: a bounded buffer in, a watched buffer out.

It knows nothing of MQTT. A `codec` (WebSocket) may stand between the transport and the buffer.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOSE_GRACE = 2.0  # seconds for the last bytes to leave; a peer that does not read is then cut off


class Codec(Protocol):
    """Frames of a protocol between the transport and MQTT. No method raises for what a peer sent."""

    over: bool
    """The peer said goodbye, or broke a rule: nothing more will come."""

    def decode(self, data: bytes) -> bytes:
        """Payload out of received bytes."""

    def replies(self) -> bytes:
        """What the codec itself wants to send after `decode`."""

    def encode(self, data: bytes) -> bytes:
        """Bytes to send for a payload."""

    def close(self) -> bytes:
        """Bytes that say goodbye; b"" when they have been said."""


@dataclass(slots=True)
class Traffic:
    """What went over a connection; plain integers, so that counting costs an addition."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    last_received: float = 0.0
    """Loop time of the last bytes from the client."""


class Wire(asyncio.Protocol):
    """One client's bytes.

    `buffer` holds what has been received and not been taken; above `read_limit` bytes reading stops until
    `take` makes room. One task at a time waits in `more`.
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
        """False while the peer takes less than is written."""
        self._reading = True
        self._waiter: asyncio.Future[None] | None = None
        self._writers: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None

    # asyncio calls these

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
        # A plain client that has only closed its sending side may still be answered. TLS cannot.
        return self.extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._transport is None:  # told twice, after a failed TLS handshake
            return
        self.eof = True
        self._transport.close()  # TLS of Python 3.10 does not know otherwise that it is
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

    # the gate calls these

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
        """Give `get_extra_info` of the transport; None when the connection is lost."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    @property
    def transport(self) -> Any:
        """The transport; None when the connection is lost."""
        return self._transport

    def switch(self, codec: Codec) -> None:
        """From here on bytes are frames of `codec`; so are those that wait in the buffer."""
        self.codec = codec
        waiting = bytes(self.buffer)
        self.buffer.clear()
        self.buffer += self._decode(waiting)

    def hold(self) -> None:
        """Read nothing before `start_tls`; called in `connected`."""
        self._transport.pause_reading()

    async def start_tls(self, context: Any, timeout: float) -> None:
        """Do the server's side of the handshake, `hold` before. Where `loop.start_tls` raises, the connection is gone.

        Must be called before anything is awaited in the task that `connected` has begun.
        """
        # uvloop takes no wrapper around its transports.
        plain = self._transport.get_extra_info("wrapped_transport", self._transport)
        if sys.version_info < (3, 11):
            # It begins to read after connection_made whatever was said in it. The first bytes are not given out
            # before this task's first step, and these two calls take them back.
            plain.resume_reading()
            plain.pause_reading()
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=timeout
            )
        except BaseException:
            plain.abort()
            self.connection_lost(None)  # asyncio does not always say so
            raise
        if transport is None:
            self.connection_lost(None)
            raise ConnectionResetError("closed during the handshake")
        self._transport = transport

    async def more(self) -> None:
        """Wait until `wake`: bytes have come, or the end."""
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let who waits in `more` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, size: int) -> bytes:
        """Remove `size` bytes, which are there, from the buffer."""
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        if not self._reading and len(self.buffer) < self._limit:
            self._reading = True
            if not self.closing:
                self._transport.resume_reading()
        return taken

    def write(self, data: bytes) -> None:
        """Send; what cannot be sent any more is dropped."""
        if self.closing:
            return
        if self.codec is not None:
            data = self.codec.encode(data)
        self.traffic.bytes_out += len(data)
        self._transport.write(data)

    async def writable_again(self) -> None:
        """Wait until `wake_writers`: the peer has taken most of what was written, or the end."""
        if self._writers is None:
            self._writers = self.loop.create_future()
        await asyncio.shield(self._writers)

    def wake_writers(self) -> None:
        """Let who waits in `writable_again` look again."""
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.set_result(None)

    def abort(self) -> None:
        """Drop the connection with what is unsent."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is unsent for at most 2 seconds, close, and wait until the socket is closed."""
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
