"""One client's way through amqtt: what amqtt's handler reads and writes, and what we correct at login and end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.session import ApplicationMessage, Session

from ...model.packet_types import PUBLISH
from ...model.reasons import Refuse
from .watched_queue import WatchedQueue

if TYPE_CHECKING:
    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

    from ..protocol import Link
    from .shared import Shared

# Above the first number of messages no publisher is read, until only the second is left.
_MANY, _FEW = 1000, 500  # of all clients
_MANY_OF_ONE, _FEW_OF_ONE = 100, 50  # of one client; amqtt takes these one by one

_IN_A_ROW = 64  # packets of one client before the others have a turn
_BEGIN_GRACE = 0.1  # seconds for amqtt to begin to serve a client that has gone already
_DELIVER_GRACE = 2.0  # seconds for amqtt to pass on what an ended client has published


class AmqttLink(ReaderAdapter, WriterAdapter):
    """Both adapters of one connection. A read never goes beyond one packet, so amqtt always starts at a packet."""

    def __init__(self, shared: Shared, link: Link, probe: Session, answers: dict[Any, Any]) -> None:
        self.answered: bool = False
        self._shared = shared
        self._link = link
        self._probe: Session | None = probe
        self._answers = answers
        self._session: Session | None = None
        self._handler: BrokerProtocolHandler | None = None
        self._published = WatchedQueue()
        self._task: asyncio.Task[Any] | None = None
        self._packet = link.connect.encode()
        self._at = 0
        self._in_a_row = 0
        self._held: bytes | None = None
        self._refused: int | None = None
        self._closed = False
        self._serving: asyncio.Future[None] | bool = False
        self._flushing = False
        self._backlog = 0
        self._from_queue = 0
        self._delivering = 0
        self._delivered: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Let amqtt serve the client until its end. Raises Refuse if amqtt does not accept the client after all."""
        self._task = asyncio.current_task()
        self._shared.subscribers.logging_in[self._task] = self._link.connect.client_id
        try:
            await self._shared.broker.external_connected(self, self, self._link.connection.listener)
        finally:
            self._shared.subscribers.logging_in.pop(self._task, None)
            self._task = None
        if self._refused is not None:
            raise Refuse("auth-error", f"amqtt answered CONNACK {self._refused}")

    async def settle(self) -> None:
        """Clean up: no handler may still work, no session may still be connected, and no clean session may stay."""
        session, handler = self._shared.broker.sessions.get(self._link.connect.client_id, (None, None))
        if session is None or handler is None or handler.reader is not self:
            return
        if session.transitions.state == "connected":
            await handler.stop()
            session.transitions.disconnect()
            await self._send_will(session)
        await self._wait_delivered()
        session.ssl_object = None
        if self._handler is not None:
            del handler.mqtt_publish, handler.wait_disconnect  # these are ours; amqtt's are in the class
        handler.detach()  # a kept session keeps its handler, which would keep all of the connection
        if session.clean_session:
            self._shared.forget(self._link.connect.client_id)

    def answer_auth(self, session: Session) -> dict[Any, Any]:
        """Give the plugins' answers, and complete amqtt's session, which may be new or resumed."""
        self.answered = True
        connect, probe = self._link.connect, self._probe
        assert probe is not None
        session.remote_address, session.remote_port = self._link.connection.client
        session.ssl_object = self._link.ssl_object
        session.username = probe.username
        session.clean_session = connect.clean_session
        session.will_retain = probe.will_retain
        session.is_anonymous = probe.is_anonymous
        session.attributes.update(probe.attributes)
        while not session.delivered_message_queue.empty():
            self._published.put_nowait(session.delivered_message_queue.get_nowait())
        session.delivered_message_queue = self._published
        answers, self._answers, self._probe = self._answers, {}, None
        return answers

    # ReaderAdapter

    async def read(self, n: int = -1) -> bytes:
        """Return `n` bytes of the current packet, or b"" at the end of the connection."""
        if n == 0 or (self._at == len(self._packet) and not await self._next()):
            return b""
        data = self._packet[self._at : self._at + n] if n > 0 else self._packet[self._at :]
        self._at += len(data)
        return data

    def feed_eof(self) -> None:
        """Do nothing: the link tells when the connection ends."""

    async def _next(self) -> bool:
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)
        if self._held is None:
            self._held = await self._link.pull()
        if self._held is None:
            await self._last_wishes()
            return False
        if self._held[0] >> 4 == PUBLISH:
            await self._wait_for_room()
        # Nothing waits from here to the return, so a cancelled read has taken no packet.
        self._packet, self._held, self._at = self._held, None, 0
        return True

    async def _wait_for_room(self) -> None:
        for queue, many, few in (
            (self._published, _MANY_OF_ONE, _FEW_OF_ONE),
            (self._shared.broadcasts, _MANY, _FEW),
        ):
            if queue.qsize() > many and not self._link.ended:
                self._shared.held_back += 1
                await queue.shrunk_to(few)

    async def _last_wishes(self) -> None:
        """Wait until amqtt has passed on what the client published. amqtt drops the rest once it learns of the end."""
        session = self._session
        if session is None:
            return
        if self._link.reason == "disconnect":
            session.will_flag = False  # amqtt takes an early DISCONNECT for a broken connection
        await self._until_served()
        for _ in range(2):
            await asyncio.sleep(0)  # amqtt's tasks put the messages of packets it has read into the queue
        if self._published.qsize():
            try:
                await asyncio.wait_for(self._published.shrunk_to(0), _DELIVER_GRACE)
            except asyncio.TimeoutError:
                self._shared.lost += self._published.qsize()

    async def _until_served(self) -> None:
        """Wait until amqtt serves the client. If amqtt learned of the end before, it would wait for the end for ever."""
        assert self._handler is not None
        if self._serving is True:
            return
        serving = self._serving = asyncio.get_running_loop().create_future()
        await asyncio.wait((serving,), timeout=_BEGIN_GRACE)
        if not serving.done():
            # amqtt waits for answers to what it has sent, and nobody will answer. `stop` would end this reader too.
            self._handler._stop_waiters()
            await asyncio.wait((serving,), timeout=_DELIVER_GRACE)

    # WriterAdapter

    def write(self, data: bytes) -> None:
        """Send one whole packet. amqtt never gives less."""
        if self._closed:
            raise ConnectionResetError("the connection was ended")
        if self._handler is None:
            self._first(data)
            if self._refused is not None:
                return
        self._link.push(data)

    async def drain(self) -> None:
        """Wait for a slow client only while amqtt empties a queue to it, whose messages are in memory anyway.

        New messages alone never wait here, because each would be a task and a copy. They go into the send
        buffer. Its limit ends a client that does not read.
        """
        if not self._from_queue or not self._link.congested:
            return
        self._flushing = True
        try:
            await self._link.drain()
        finally:
            self._flushing = False
            self._backlog = 0
        if self._link.ended:
            raise ConnectionResetError("the connection was ended")

    def get_peer_info(self) -> tuple[str, int]:
        """Return the client's real address."""
        return self._link.connection.client

    def get_ssl_info(self) -> Any:
        """Return our own TLS object, or one that shows what the proxy says about its TLS."""
        return self._link.ssl_object

    async def close(self) -> None:
        """Take no more packets from amqtt. The gate closes the connection."""
        self._closed = True

    def _first(self, connack: bytes) -> None:
        """Look at the CONNACK. amqtt has just entered the session and its handler into its table."""
        if connack[3]:
            self._refused = connack[3]
            return
        session, handler = self._shared.broker.sessions[self._link.connect.client_id]
        self._session, self._handler = session, handler
        self._publish, handler.mqtt_publish = handler.mqtt_publish, self._deliver  # type: ignore[method-assign]
        self._wait, handler.wait_disconnect = handler.wait_disconnect, self._logged_in  # type: ignore[method-assign]
        self._link.welcome()

    # These replace methods of the handler.

    def _logged_in(self) -> Any:
        """Note that amqtt begins to serve the client. From here on it may see everybody's subscriptions."""
        self._shared.subscribers.logging_in.pop(self._task, None)
        serving, self._serving = self._serving, True
        if isinstance(serving, asyncio.Future) and not serving.done():
            serving.set_result(None)
        return self._wait()

    async def _deliver(
        self,
        topic: str,
        data: bytes | bytearray,
        qos: int | None,
        retain: bool,
        ack_timeout: int | None = None,
    ) -> Any:
        """Send a message to the client. Keep it for the next connection if this one can no longer acknowledge it."""
        assert self._session is not None
        # amqtt sets `retain` on every message that it does not send at the moment of its publishing.
        queued = retain
        if queued:
            if not await self._shared.may_receive(self._session, topic):
                return None
            retain = self._shared.is_retained(topic, data)
        if self._over():
            self._keep(topic, data, qos)
            return None
        if self._flushing and not queued:
            self._backlog += len(data)
            if self._backlog > self._link.max_send_buffer:
                self._link.end("slow-consumer", "new messages came faster than its queue could be emptied")
        self._delivering += 1
        self._from_queue += queued
        try:
            return await self._publish(topic, data, qos, retain, ack_timeout)
        except asyncio.CancelledError:
            self._keep(topic, data, qos)
            raise
        except Exception as wrong:  # amqtt would not catch it: the garbage collector would report it
            if self._over():
                self._keep(topic, data, qos)
            else:
                self._shared.not_delivered(wrong, self._link.connection)
            return None
        finally:
            self._delivering -= 1
            self._from_queue -= queued
            if not self._delivering and self._delivered is not None and not self._delivered.done():
                self._delivered.set_result(None)

    def _over(self) -> bool:
        return self._closed or self._link.ended

    def _keep(self, topic: str, data: bytes | bytearray, qos: int | None) -> None:
        session = self._session
        assert session is not None
        if qos and not session.clean_session and not session.is_anonymous:
            session.retained_messages.put_nowait(ApplicationMessage(None, topic, qos, data, retain=False))

    async def _wait_delivered(self) -> None:
        if self._delivering:
            self._delivered = asyncio.get_running_loop().create_future()
            await self._delivered

    async def _send_will(self, session: Session) -> None:
        if not session.will_flag or session.will_topic is None or session.will_message is None:
            return
        await self._shared.broker.internal_message_broadcast(
            session.will_topic, bytes(session.will_message), session.will_qos
        )
        if session.will_retain:
            await self._shared.broker.retain_message(
                session, session.will_topic, session.will_message, session.will_qos
            )
