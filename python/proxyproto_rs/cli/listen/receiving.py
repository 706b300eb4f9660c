"""One connection at `proxyproto-rs listen`: its header, then TLS if it is asked for, then what comes behind."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from proxyproto_rs import Decoder, InvalidHeader

from ..decode.fields import LONGEST_HEADER

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

_Result = TypeVar("_Result")

MOST_BEHIND = 4096
"""How many bytes behind the header are read."""


@dataclass
class Received:
    """What a client sent."""

    data: bytes = b""
    """All bytes, from the first on, up to the longest header and `MOST_BEHIND`."""
    header_length: int | None = None
    """None if there is no valid header."""
    has_ended: bool = False
    """Whether the client closed or reset the connection."""
    is_late: bool = False
    """Whether the header was not whole in time."""
    tls: str = ""
    """What became of the TLS handshake; empty if there was none."""
    behind: bytes = b""
    """What came behind the header; with TLS, what was in it."""


class Client:
    """A connected socket, from which everything is read by a deadline."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self._sock, self._context = sock, context
        self._loop = asyncio.get_running_loop()
        self.received: Received = Received()

    async def receive(self, header_timeout: float, wait: float) -> Callable[[bytes], Awaitable[None]] | None:
        """Read the header within `header_timeout` seconds, and what follows it until `wait` seconds bring nothing more.

        Returns what answers the client, an awaitable function; None if nothing can be sent.
        """
        try:
            await asyncio.wait_for(self._read_header(), header_timeout)
        except asyncio.TimeoutError:
            self.received.is_late = True
            return None
        received = self.received
        rest = received.data[received.header_length or 0 :]
        if self._context is None or (received.has_ended and not rest):
            received.behind = await self._read_behind(rest, self._read, wait)
            return self._write
        return await self._receive_tls(self._context, rest, wait)

    async def _read_header(self) -> None:
        decoder, received = Decoder(max_header_size=LONGEST_HEADER), self.received
        while True:
            data = await self._read()
            if not data:
                received.has_ended = True
                return
            received.data += data
            try:
                header = decoder.feed(data)
            except InvalidHeader:
                return
            if header is not None:
                received.header_length = len(header.raw)
                return

    async def _read(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._sock, MOST_BEHIND)
        except OSError:
            return b""

    async def _write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def _read_behind(self, data: bytes, read: Callable[[], Awaitable[bytes]], wait: float) -> bytes:
        """Read until enough came, a request of HTTP is whole, the client closes, or is silent for `wait` seconds."""
        while len(data) < MOST_BEHIND and b"\r\n\r\n" not in data and not self.received.has_ended:
            try:
                more = await asyncio.wait_for(read(), wait)
            except (asyncio.TimeoutError, ssl.SSLError):
                break
            if not more:
                self.received.has_ended = True
            data += more
        return data[:MOST_BEHIND]

    async def _receive_tls(
        self, context: ssl.SSLContext, rest: bytes, wait: float
    ) -> Callable[[bytes], Awaitable[None]] | None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(rest)
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        async def turn(operation: Callable[[], _Result]) -> _Result:
            while True:
                try:
                    result = operation()
                except ssl.SSLWantReadError:
                    await self._flush(outgoing)
                    data = await self._read()
                    incoming.write(data) if data else incoming.write_eof()
                else:
                    await self._flush(outgoing)
                    return result

        try:
            await asyncio.wait_for(turn(tls.do_handshake), max(wait, 5.0))
        except asyncio.TimeoutError:
            self.received.tls = "the handshake was not whole in time"
            return None
        except OSError as wrong:
            await self._flush(outgoing)
            reason = str(getattr(wrong, "reason", None) or wrong).lower().replace("_", " ")
            self.received.tls = f"the handshake failed: {reason}"
            self.received.behind = rest[:MOST_BEHIND]
            return None
        cipher = tls.cipher()
        self.received.tls = f"{tls.version()}, {cipher[0] if cipher else 'no cipher'}"

        async def read() -> bytes:
            return await turn(lambda: tls.read(MOST_BEHIND))

        async def write(data: bytes) -> None:
            await turn(lambda: tls.write(data))

        self.received.behind = await self._read_behind(b"", read, wait)
        return write

    async def _flush(self, outgoing: ssl.MemoryBIO) -> None:
        if outgoing.pending:
            try:
                await self._loop.sock_sendall(self._sock, outgoing.read())
            except OSError:
                outgoing.read()
