"""The way of every login through the gateway: identity, checks, limits; then the passwords, which each kind of front asks.

The gateway (in Rust) has the connections and the packets. Here it is decided who may come in, and written down what
happened.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxyproto_rs import Listener
from proxyproto_rs._core import (
    Ended,
    Gateway,
    ListenerReport,
    Login,
    Refused,
    ServerChange,
    Welcomed,
)

from ..config import LimitsConfig, MqttConfig
from ..model.connection import connection_of_arrival
from ..model.events import Observer, RefusedClient
from ..model.reasons import Refuse
from ..policy.admission import check_limits
from ..tables.sessions import Sessions
from ..telling.faults import Faults
from .channels import ArrivalTls
from .door import Check, Door
from .entering import Entering
from .refusing import is_nobodys
from .visitor import Visitor

if TYPE_CHECKING:
    from proxyproto_rs._core import Arrival

    from ..model.session_record import SessionRecord
    from ..tables.sessions import Kept

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")

_AT_ONCE = (
    64  # events between two turns of the event loop, so that a storm of logins holds nothing else up for long
)
_ENDS_A_SECOND = (
    1000  # sessions that a drain ends at most, so that their clients do not come back all at once
)
_END_GRACE = 2.0  # seconds for clients to take their last bytes


class Front(abc.ABC):
    """Decides about the logins of a gateway, and keeps the sessions' records. `start` makes the gateway.

    Args:
        kept: What is known of the sessions that are kept behind it.
        mqtt: Deadlines and sizes.
        limits: How many sessions and logins there may be, and how fast a client may publish.
        checks: Decide who may come in. They are asked in this order, before any password.
        observer: Is told which clients were refused, came and went.
        node_id: Shown in session records.
        session_expiry: How long sessions are kept whose client does not say it, in seconds; 0 means for ever.
    """

    gateway: Gateway

    def __init__(
        self,
        kept: Kept,
        *,
        mqtt: MqttConfig,
        limits: LimitsConfig,
        checks: Sequence[Check],
        observer: Observer,
        node_id: str,
        session_expiry: int = 0,
    ) -> None:
        self.mqtt: MqttConfig = mqtt
        self.limits: LimitsConfig = limits
        self.checks: Sequence[Check] = checks
        self.observer: Observer = observer
        self.sessions: Sessions = Sessions(kept, node_id, session_expiry)
        self.faults: Faults = Faults(logger)
        self._doors: dict[str, Door] = {}
        self._listeners: dict[str, Listener] = {}
        self._visitors: dict[int, Visitor] = {}
        self._entering = Entering(self.sessions)
        self._events: deque[Any] = deque()
        self._all_gone: asyncio.Event | None = None
        self._last_numbers: Mapping[str, Any] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Login: self._came,
            Welcomed: self._welcomed,
            Refused: self._refused,
            Ended: self._ended,
            ListenerReport: self._reported,
            ServerChange: self._server_changed,
        }

    # each kind of front has its own

    @abc.abstractmethod
    def _options(self) -> dict[str, Any]:
        """Return the gateway's options."""

    @abc.abstractmethod
    def _visitor(self, event: Login) -> Visitor:
        """Return what is to be known of a client."""

    @abc.abstractmethod
    def _ask(self, visitor: Visitor) -> None:
        """Ask for the password of a client that may come in otherwise, and let it in or turn it away."""

    @abc.abstractmethod
    async def _let_go(self) -> None:
        """Close what is behind, when the gateway is closed."""

    # the life of the gateway

    async def start(self) -> None:
        """Start the gateway's threads, and ask for its events. Raises OSError if there is no thread or descriptor."""
        self.gateway = Gateway(self._options())
        asyncio.get_running_loop().add_reader(self.gateway.fileno(), self._take)

    def open(self, listener: Listener, door: Door) -> None:
        """Serve a Listener under the rules of `door` until it is closed."""
        self._doors[door.name] = door
        self._listeners[door.name] = listener
        listener.hand_to(
            self.gateway,
            name=door.name,
            max_unauthenticated=self.limits.max_unauthenticated,
            channel=door.channel,
        )

    def _change(self, mqtt: MqttConfig, limits: LimitsConfig) -> None:
        """Put other options in force, for clients that come from now on. They must have been checked."""
        self.mqtt, self.limits = mqtt, limits
        self.gateway.update(self._options())
        for name, door in self._doors.items():
            self.gateway.change_listener(
                name, max_unauthenticated=limits.max_unauthenticated, channel=door.channel
            )

    @property
    def publish_delays(self) -> int:
        """How often `limits.publish` delayed a publisher."""
        return sum(numbers["publish_delays"] for numbers in self.numbers()["listeners"].values())

    def numbers(self) -> Mapping[str, Any]:
        """Return the gateway's numbers of now, and after `close` its last ones."""
        return self.gateway.stats() if self._last_numbers is None else self._last_numbers

    def embedded_numbers(self) -> Mapping[str, int]:
        """Return what the embedded broker counts; nothing without one."""
        return {}

    def end_logins(self, reason: str, covers: Callable[[Visitor], bool]) -> None:
        """End those that have been let in here, and not yet by a server, and are covered by a new rule."""
        for visitor in list(self._visitors.values()):
            if visitor.record is None and covers(visitor):
                visitor.end(reason)

    async def close(self) -> None:
        """End all sessions, one after the other, and then the threads. The listeners must have been closed.

        A second call does nothing.
        """
        if self._all_gone is not None:
            return
        sessions = len(self._visitors)
        over = min(self.mqtt.drain, sessions / _ENDS_A_SECOND)
        self._all_gone = asyncio.Event()
        if sessions:
            self.gateway.drain(over)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), over + _END_GRACE)
        asyncio.get_running_loop().remove_reader(self.gateway.fileno())
        await asyncio.to_thread(self.gateway.close)
        self._events += self.gateway.take()
        while self._events:
            self._handle(self._events.popleft())
        await self._let_go()
        self._last_numbers = self.gateway.stats()
        del self.gateway  # its descriptors go with it, whoever else still holds this object

    # events

    def _take(self) -> None:
        if not self._events:
            self._events += self.gateway.take()
            self._work()

    def _work(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._events))):
            self._handle(self._events.popleft())
        if self._events:
            asyncio.get_running_loop().call_soon(self._work)

    def _handle(self, event: Any) -> None:
        self._attempt(self._handlers[type(event)], event)

    def _attempt(self, handle: Callable[[Any], None], event: Any) -> None:
        try:
            handle(event)
        except Exception as wrong:  # a fault with one client must not affect others
            self.faults.note(wrong, f"broker-error event={type(event).__name__}")
            if isinstance(event, Login):
                self.gateway.refuse(event.token, "auth-error", "a fault of ours")

    def _came(self, event: Login) -> None:
        visitor = self._visitor(event)
        self._visitors[event.token] = visitor
        try:
            self._identify(visitor, event.arrival)
            for check in self.checks:
                check(visitor)
            check_limits(visitor, self.limits, self._entering)
        except Refuse as refused:
            self._turn_away(visitor, refused)
            return
        self._ask(visitor)

    def _welcomed(self, event: Welcomed) -> None:
        visitor = self._visitors[event.token]
        # A server of MQTT 5 must say which id it has chosen. If it does not, ours tells the session from others.
        client_id = event.client_id or visitor.connection.session_id
        record = self.sessions.begin(visitor, client_id)
        self._tell(visitor, record, event)
        visitor.record = record
        self._entering.end(visitor)
        self.observer.connected(record)

    def _refused(self, event: Refused) -> None:
        visitor = None if event.token is None else self._gone(event.token)
        if visitor is not None:
            self._entering.end(visitor)
            if visitor.task is not None:
                visitor.task.cancel()
            visitor.reason, visitor.detail = event.reason, event.detail
            visitor.settle()
        if event.reason == "server-shutdown":
            return
        connect = event.connect if visitor is None else visitor.connect
        reason = _RECORDED_AS.get(event.reason, event.reason)
        refused = Refuse(reason, _words(event), client_id=event.client_id)
        if visitor is not None and visitor.refusal is not None and event.detail == visitor.refusal.detail:
            refused = visitor.refusal  # in our words
        connection = connection_of_arrival(event.arrival) if visitor is None else visitor.connection
        door = self._doors[connection.listener]
        if event.reason == "unexpected-header":
            refused = Refuse(event.reason, _UNEXPECTED.format(connection.listener))
        if visitor is None and connection.address_source == "forwarded":
            refused = _in_our_words(door, connection.client[0], refused)
        self.observer.refused(
            RefusedClient(
                connection=connection,
                reason=refused.reason,
                detail=refused.detail,
                client_id=event.client_id if connect is None else connect.client_id,
                username=visitor.username
                if visitor is not None
                else None
                if connect is None
                else connect.username,
                password_provided=connect is not None and connect.password is not None,
                mqtt_version=None if connect is None else connect.mqtt_version,
                upstream=event.server_address,
                quiet=event.is_bridge_probe
                or is_nobodys(connection, refused, door.trusted, silent=event.detail in _NO_BYTE),
                seconds=_age(event.arrival) if visitor is None else visitor.age(),
            )
        )

    def _ended(self, event: Ended) -> None:
        visitor = self._gone(event.token)
        record = visitor.record
        visitor.reason, visitor.detail = event.reason, _words(event)
        visitor.traffic = event.traffic
        if record is not None:
            record.traffic = event.traffic
            self._finish(visitor, record, event.session_expiry)
        visitor.settle()
        if record is not None:
            self.observer.disconnected(record)

    def _tell(self, visitor: Visitor, record: SessionRecord, event: Welcomed) -> None:
        """Put into the record what the server has said."""
        visitor.tell(record, event)

    def _finish(self, visitor: Visitor, record: SessionRecord, expiry: int | None) -> None:
        """Close the record of a session that is over."""
        self.sessions.finish(visitor, record, expiry)

    def _reported(self, event: ListenerReport) -> None:
        self._listeners[event.listener].tell(event)

    def _server_changed(self, event: ServerChange) -> None:
        name = (
            event.server
            if event.server == event.server_address
            else f"{event.server} ({event.server_address})"
        )
        if event.is_up:
            logger.info("upstream-up upstream=%s", name)
        else:
            logger.warning("upstream-down upstream=%s detail=%s", name, event.detail)

    # the way of one login

    def _identify(self, visitor: Visitor, arrival: Arrival) -> None:
        identity = visitor.door.identity
        if identity.source == "none":
            return
        name = identity.name_of(visitor.connection, ArrivalTls(arrival))
        identity.check_client_id(name, visitor.connect.client_id)
        if name is not None and identity.use_as == "username":
            visitor.username = name
            visitor.certificate_is_login = True

    def _turn_away(self, visitor: Visitor, refused: Refuse) -> None:
        visitor.refusal = refused
        self.gateway.refuse(visitor.token, _ANSWERED_AS.get(refused.reason, refused.reason), refused.detail)

    def _gone(self, token: int) -> Visitor:
        visitor = self._visitors.pop(token)
        if not self._visitors and self._all_gone is not None:
            self._all_gone.set()
        return visitor


_ANSWERED_AS = {"denied": "access-denied"}
"""Reasons that are no answer of MQTT, and what the client is told."""

_RECORDED_AS = {"malformed-packet": "malformed-connect"}
"""What ends a session, and here a login: a message that is not binary, in place of the CONNECT or behind it."""

_UNEXPECTED = "a PROXY header where none is expected: should listeners.{}.proxy_protocol be required?"

_NO_BYTE = ("after 0 bytes", "closed before the upgrade request was whole")
"""What the gateway says of a client that has gone without a byte."""


def _in_our_words(door: Door, address: str, refused: Refuse) -> Refuse:
    """Say which block or list keeps an address from X-Forwarded-For out, and count the hit of the block.

    The gateway knows that it is kept out, and not by what.
    """
    if refused.reason in ("blocked", "denied") and door.check_address is not None:
        try:
            door.check_address(address)
        except Refuse as ours:
            return ours
    return refused


def _words(event: Refused | Ended) -> str:
    """Return the detail, with the words and the code of the server's last packet."""
    # Of a refusal the words stand in the detail already.
    words = event.reason_string if isinstance(event, Ended) else None
    detail = "; ".join(filter(None, (event.detail, words)))
    code = event.server_code
    return detail if code is None else f"{detail} (code {code:#04x})".strip()


def _age(arrival: Arrival) -> float:
    return max(0.0, time.time() - arrival.at)
