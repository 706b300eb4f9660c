"""Our end of the stream over which the gateway hands a client's packets in, as an asyncio protocol.

The gateway has checked the packets, so only their length is read here. Buffers are bounded in both directions.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

_MOST_UNSENT = 64 * 1024  # asyncio's own limit
_LAST_DIGIT = 0x80  # a smaller byte ends a remaining length (MQTT 3.1.1, section 2.2.3)


class Stream(asyncio.Protocol):
    """A stream of whole packets. Above `read_limit` bytes reading stops until packets are taken.

    One task at a time may wait in `more`.
    """

    __slots__ = (
        "_buffer",
        "_limit",
        "_loop",
        "_reading",
        "_transport",
        "_waiter",
        "_writers",
        "over",
        "writable",
    )

    def __init__(self, read_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = read_limit
        self._buffer = bytearray()
        self._transport: Any = None
        self._reading = True
        self._waiter: asyncio.Future[None] | None = None
        self._writers: asyncio.Future[None] | None = None
        self.over: bool = False
        """Nothing more will come."""
        self.writable: bool = True
        """False while the other end takes less than we write."""

    @classmethod
    async def pair(cls, read_limit: int, write_limit: int) -> tuple[Stream, socket.socket]:
        """Return a stream, and the socket that is its other end. Above `write_limit` bytes it is not `writable`."""
        ours, theirs = socket.socketpair()
        try:
            transport, stream = await asyncio.get_running_loop().create_unix_connection(
                lambda: cls(read_limit), sock=ours
            )
            transport.set_write_buffer_limits(min(write_limit, _MOST_UNSENT))
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return stream, theirs

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._reading and len(self._buffer) >= self._limit:
            self._reading = False
            self._transport.pause_reading()
        self.wake()

    def eof_received(self) -> bool:
        self.over = True
        self.wake()
        return True  # a client that has closed its side may still get an answer

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.over = True
        self._transport = None
        self.resume_writing()
        self.wake()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.wake_writers()

    # The client calls these.

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def take(self) -> bytes | None:
        """Return the next packet; None if it is not whole yet."""
        buffer = self._buffer
        length = shift = 0
        for at in range(1, len(buffer)):
            digit = buffer[at]
            length |= (digit & ~_LAST_DIGIT) << shift
            shift += 7
            if digit < _LAST_DIGIT:
                end = at + 1 + length
                return self._cut(end) if len(buffer) >= end else None
        return None

    async def more(self) -> None:
        """Wait until `wake` is called: bytes have come, or the end."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the task that waits in `more` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def write(self, data: bytes) -> None:
        """Send the bytes. They are dropped if the stream is closed."""
        if self._transport is not None:
            self._transport.write(data)

    async def writable_again(self) -> None:
        """Wait until `wake_writers` is called: most of what was written is taken, or the end has come."""
        if self._writers is None:
            self._writers = self._loop.create_future()
        await asyncio.shield(self._writers)

    def wake_writers(self) -> None:
        """Let the tasks that wait in `writable_again` look again."""
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.set_result(None)

    def close(self) -> None:
        """Close it, once the kernel has taken what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.abort()

    def _cut(self, end: int) -> bytes:
        buffer = self._buffer
        packet = bytes(buffer[:end])
        del buffer[:end]
        if not self._reading and len(buffer) < self._limit:
            self._reading = True
            if self._transport is not None:
                self._transport.resume_reading()
        return packet
