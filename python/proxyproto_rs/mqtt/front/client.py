"""One client inside the gate, from its first byte to its last: what is known about it, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from ..model.packet_types import DISCONNECT, PUBLISH
from ..model.reasons import Refuse
from .connect import starts_with_header
from .packets import PacketError, check_packet, packet_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..config import MqttConfig
    from ..model.connection import Connection
    from ..model.login import Connect
    from ..model.session_record import SessionRecord, Traffic
    from .door import Door
    from .rates import PublishRate
    from .wire import Wire

_PATIENCE = 4  # the part of `auth_timeout` that a login may wait in a queue; the rest is for the check
_SETTLE = 5.0  # seconds for the backend to let go of an ended client


class Host(Protocol):
    """What a client needs of its gate."""

    mqtt: MqttConfig
    publish_delays: int
    """How often `limits.publish` delayed a publisher."""

    def welcomed(self, client: Client) -> None:
        """Open the client's session."""


class Client:
    """Implements `backend.Link`.

    Every connection ends through `end`. It wakes all that wait for the client, and the gate's task closes the
    wire. Only the first reason counts.
    """

    __slots__ = (
        "__weakref__",
        "_accepted_at",
        "_host",
        "_keep_alive",
        "_partial_since",
        "_settled",
        "_timer",
        "backend_state",
        "certificate_is_login",
        "connect",
        "connection",
        "detail",
        "door",
        "forced",
        "greeted",
        "locked",
        "options",
        "rate",
        "reason",
        "record",
        "ssl_object",
        "task",
        "username",
        "wire",
    )

    connect: Connect  # set once it has been read

    def __init__(self, wire: Wire, connection: Connection, host: Host, door: Door) -> None:
        self.wire: Wire = wire
        self.connection: Connection = connection
        self._host = host
        self.door: Door = door
        self.options: MqttConfig = host.mqtt
        self.task: asyncio.Task[None] | None = None
        self.username: str | None = None
        self.certificate_is_login: bool = False
        self.ssl_object: Any = None
        self.backend_state: Any = None
        self.record: SessionRecord | None = None
        self.rate: PublishRate | None = None
        self.reason: str | None = None
        self.detail: str = ""
        self.greeted: bool = False
        """A whole CONNECT has been read, so a CONNACK may answer it."""
        self.locked: bool = False
        """The client holds the lock of its client id."""
        self.forced: bool = False
        """Its own timer has cancelled it."""
        self._accepted_at = wire.loop.time()
        self._keep_alive = 0.0
        self._partial_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._settled: asyncio.Future[None] | bool = False

    @property
    def traffic(self) -> Traffic:
        """Its bytes and packets."""
        return self.wire.traffic

    def age(self) -> float:
        """Return the seconds since the connection was accepted."""
        return self.wire.loop.time() - self._accepted_at

    # how it ends

    @property
    def ended(self) -> bool:
        """Whether no more packets are taken from the client."""
        return self.reason is not None

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection. Packets that wait in the buffer are no longer read."""
        if self.reason is not None:
            return
        self.reason = reason
        self.detail = detail
        if reason == "slow-consumer":
            self.wire.abort()  # waiting for a client that does not read would keep its unread bytes
        if self.record is not None:
            self._set_timer(_SETTLE, self._force)
        self.wire.wake()
        self.wire.wake_writers()

    def settle(self) -> None:
        """Stop the timer, and let `wait_settled` return."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        settled, self._settled = self._settled, True
        if isinstance(settled, asyncio.Future) and not settled.done():
            settled.set_result(None)

    async def wait_settled(self) -> None:
        """Wait until the session of an ended client is settled."""
        if self._settled is True:
            return
        if self._settled is False:
            self._settled = self.wire.loop.create_future()
        assert isinstance(self._settled, asyncio.Future)
        await asyncio.shield(self._settled)

    def _force(self) -> None:
        self._timer = None
        self.forced = True
        if self.task is not None:
            self.task.cancel()

    # while it logs in

    @contextlib.contextmanager
    def deadline(self, seconds: float, reason: str, detail: str) -> Iterator[None]:
        """End the client with `reason` unless the block is left within `seconds`. `more` then raises."""
        timer = self.wire.loop.call_later(seconds, self.end, reason, detail)
        try:
            yield
        finally:
            timer.cancel()

    async def more(self) -> None:
        """Wait for bytes, or for their end. Raises Refuse if the client was ended meanwhile."""
        if self.reason is None:
            await self.wire.more()
        if self.reason is not None:
            raise Refuse(self.reason, self.detail)

    def refuse_header(self) -> None:
        """Raise Refuse if the client sends a PROXY header where none is expected.

        The acceptor checks only the bytes that are there at once, and does not wait for more.
        """
        if self.connection.header is None and starts_with_header(self.wire.buffer):
            key = f"listeners.{self.door.name}.proxy_protocol"
            raise Refuse(
                "unexpected-header", f"a PROXY header where none is expected: should {key} be required?"
            )

    def still_there(self) -> None:
        """Raise Refuse if the client no longer waits for the answer."""
        if self.reason is not None:
            raise Refuse(self.reason, self.detail)
        if self.wire.closing:
            raise Refuse("closed-early", "gone while its login was checked")

    # packets

    def welcome(self) -> None:
        """Open the session. The CONNACK that follows lets the client in."""
        self._keep_alive = self.connect.keep_alive * self.options.keepalive_factor
        if self._keep_alive:
            self._watch(self._keep_alive)
        self._host.welcomed(self)

    async def pull(self) -> bytes | None:
        """Return the next checked packet; None at the end, when `reason` says why."""
        while self.reason is None:
            if self.rate is not None and self.wire.buffer and self.wire.buffer[0] >> 4 == PUBLISH:
                await self._pace(self.rate)
            packet = self._next_packet()
            if packet is None:
                if self.reason is None:
                    await self.wire.more()
                continue
            kind = packet[0] >> 4
            self.door.counts.packets_in[kind] += 1
            if kind == DISCONNECT:
                self.end("disconnect")
                break
            if kind == PUBLISH and self.rate is not None:
                self.rate.spend(self.wire.loop.time())
            return packet
        return None

    def push(self, packet: bytes) -> None:
        """Send one packet. End a client that has left more than `max_send_buffer` bytes unread."""
        self.wire.traffic.packets_out += 1
        self.door.counts.packets_out[packet[0] >> 4] += 1
        self.wire.write(packet)
        if self.wire.unsent > self.options.max_send_buffer:
            self.end("slow-consumer", f"more than {self.options.max_send_buffer} bytes unread")

    async def drain(self) -> None:
        """Wait until the client has taken most of what was pushed, has been ended, or has gone."""
        while self.congested:
            await self.wire.writable_again()

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""
        return self.reason is None and not self.wire.writable

    @property
    def patience(self) -> float:
        """How long its password may wait to be checked, in seconds."""
        return self.options.auth_timeout / _PATIENCE

    @property
    def max_send_buffer(self) -> int:
        """How many bytes may wait for a client that does not read."""
        return self.options.max_send_buffer

    def _next_packet(self) -> bytes | None:
        buffer = self.wire.buffer
        try:
            size = packet_length(buffer, self.options.max_packet_size)
            if size is None or len(buffer) < size:
                self._incomplete()
                return None
            packet = self.wire.take(size)
            self._partial_since = 0.0
            check_packet(packet)
        except PacketError as wrong:
            self.end(wrong.reason, wrong.detail)
            return None
        self.wire.traffic.packets_in += 1
        return packet

    def _incomplete(self) -> None:
        if self.wire.eof:
            codec = self.wire.codec
            reason = getattr(codec, "broken", None) if codec is not None else None
            self.end(reason or "connection-lost")
        elif self.wire.buffer and not self._partial_since:
            self._partial_since = self.wire.loop.time()
            self._watch(self.options.packet_timeout)

    async def _pace(self, rate: PublishRate) -> None:
        loop = self.wire.loop
        if rate.delay(loop.time()) > 0:
            self._host.publish_delays += 1
        while self.reason is None and (delay := rate.delay(loop.time())) > 0:
            timer = loop.call_later(delay, self.wire.wake)
            try:
                await self.wire.more()
            finally:
                timer.cancel()

    # The timer: there is one, set again only when it fires, because packets are more frequent than timeouts.

    def _watch(self, seconds: float) -> None:
        if self._timer is None or self._timer.when() > self.wire.loop.time() + seconds:
            self._set_timer(seconds, self._check_time)

    def _set_timer(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.wire.loop.call_later(seconds, call)

    def _check_time(self) -> None:
        self._timer = None
        if self.reason is not None:
            return
        now = self.wire.loop.time()
        waits = []
        if self._partial_since:
            waits.append((self._partial_since + self.options.packet_timeout - now, "packet-timeout"))
        if self._keep_alive:
            # While we do not read from a client, its silence does not count.
            since = self.wire.traffic.last_received if self.wire.reading else now
            waits.append((since + self._keep_alive - now, "keep-alive"))
        for left, reason in waits:
            if left <= 0:
                self.end(reason)
                return
        if waits:
            self._watch(min(left for left, _ in waits))
