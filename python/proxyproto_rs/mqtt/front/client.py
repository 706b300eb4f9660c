"""A client of a broker in this process: what the broker sees of it, and the stream of its packets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..model.login import Connect, Will
from ..model.packet_types import DISCONNECT
from .channels import ArrivalTls, ProxyTls
from .stream import Stream
from .visitor import Visitor

if TYPE_CHECKING:
    import socket

    from proxyproto_rs._core import Gateway
    from proxyproto_rs._core import Login as ToldLogin

    from ..config import MqttConfig
    from .door import Door

_PATIENCE = 4  # the part of `auth_timeout` that a login may wait in a queue; the rest is for the check
_BEHIND = 16 * 1024  # bytes that may be read ahead, behind the largest packet


class Client(Visitor):
    """Implements `backend.Link`."""

    __slots__ = (
        "__weakref__",
        "_peer",
        "_stream",
        "_told",
        "backend_state",
        "is_carried",
        "options",
        "ssl_object",
    )

    connect: Connect
    reason: str | None

    def __init__(self, told: ToldLogin, door: Door, gateway: Gateway, options: MqttConfig) -> None:
        super().__init__(told, door, gateway)
        said = told.connect
        self.connect = Connect(
            client_id=self.connect.client_id,
            clean_session=said.clean_session,
            keep_alive=said.keep_alive,
            will=None if said.will is None else Will(*said.will),
            username=said.username,
            password=said.password,
        )
        self.options: MqttConfig = options
        self.ssl_object: Any = None
        if told.arrival.tls is not None:
            self.ssl_object = ArrivalTls(told.arrival)
        elif self.connection.tls is not None:
            assert self.connection.header is not None
            assert self.connection.header.ssl is not None
            self.ssl_object = ProxyTls(self.connection.header.ssl)
        self.backend_state: Any = None
        self.is_carried: bool = False
        """The backend has it."""
        self._told: asyncio.Future[None] | None = None
        self._stream: Stream | None = None
        self._peer: socket.socket | None = None

    # The gate calls these.

    async def open_stream(self) -> None:
        """Make the stream. The gateway gets the other end when the backend lets the client in."""
        room = max(self.options.max_packet_size, self.options.max_connect_size) + _BEHIND
        # `drain` must wait before `push` ends the client.
        self._stream, self._peer = await Stream.pair(room, self.options.max_send_buffer // 2)

    def close_stream(self) -> None:
        """Let go of the stream. What was written still goes out."""
        if self._stream is not None:
            self._stream.close()
        self._close_peer()

    @property
    def is_welcome(self) -> bool:
        """Whether the backend has let it in."""
        return self._stream is not None and self._peer is None

    def wake(self) -> None:
        """Let all that wait for the client look again."""
        if self._told is not None and not self._told.done():
            self._told.set_result(None)
        if self._stream is not None:
            self._stream.wake()
            self._stream.wake_writers()

    def over(self, reason: str) -> None:
        """Take no more packets: the gateway has ended the connection."""
        if self.reason is None:
            self.reason = reason
        self.wake()

    # how it ends

    @property
    def ended(self) -> bool:
        """Whether no more packets are taken from the client."""
        return self.reason is not None

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection. Packets that wait are no longer read, unless another connection takes it over."""
        super().end(reason, detail)
        if reason != "taken-over":
            self.over(reason)
        # Otherwise the acknowledgements that the client has sent count: it would get those messages once more.

    # packets

    def welcome(self) -> None:
        """Give the gateway its end of the stream. The CONNACK that follows lets the client in."""
        assert self._peer is not None
        chosen = self.connect.client_id
        # If the client has gone meanwhile, an event tells of it.
        self._gateway.admit(self.token, client_id=chosen, stream=self._peer.fileno())
        self._close_peer()

    async def pull(self) -> bytes | None:
        """Return the next packet; None at the end, when `reason` says why."""
        stream = self._stream
        assert stream is not None
        if self.record is None and self.reason is None:
            await self._until_told()
        while self.reason is None:
            packet = stream.take()
            if packet is None:
                if stream.over:
                    self.reason = "connection-lost"  # until the gateway says why
                else:
                    await stream.more()
                continue
            if packet[0] >> 4 == DISCONNECT:
                self.reason = "disconnect"
                break
            return packet
        return None

    def push(self, packet: bytes) -> None:
        """Send one packet. End a client that has left more than `max_send_buffer` bytes unread."""
        stream = self._stream
        assert stream is not None
        waiting = stream.unsent
        stream.write(packet)
        if waiting > self.options.max_send_buffer:
            self.end("slow-consumer", f"more than {self.options.max_send_buffer} bytes unread")
            stream.abort()  # waiting for a client that does not read would keep its unread bytes

    async def drain(self) -> None:
        """Wait until the client has taken most of what was pushed, has been ended, or has gone."""
        stream = self._stream
        assert stream is not None
        while self.congested:
            await stream.writable_again()

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""
        return self.reason is None and self._stream is not None and not self._stream.writable

    @property
    def patience(self) -> float:
        """How long its password may wait to be checked, in seconds."""
        return self.options.auth_timeout / _PATIENCE

    @property
    def max_send_buffer(self) -> int:
        """How many bytes may wait for a client that does not read."""
        return self.options.max_send_buffer

    async def _until_told(self) -> None:
        """Wait until the gateway has told that the session has begun: no packet comes before its record."""
        self._told = asyncio.get_running_loop().create_future()
        try:
            await self._told
        finally:
            self._told = None

    def _close_peer(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None
