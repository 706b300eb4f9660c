"""The way of every login through the gateway: identity, checks, limits, own passwords, admit.

The gateway (in Rust) has the connections and the packets. Here it is decided who may come in, and written down what
happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from proxyproto_rs._core import (
    Ended,
    Gateway,
    ListenerReport,
    Login,
    Refused,
    ServerChange,
    Welcomed,
)

from ..backend.embedded.broker import EmbeddedBroker
from ..backend.upstream.kept import KeptUpstream
from ..config.embedded import upstream_of
from ..config.gateway import gateway_options
from ..model.connection import connection_of_arrival
from ..model.events import RefusedClient
from ..model.reasons import Refuse
from ..policy.admission import check_limits, check_owner
from ..policy.asking import Asking
from ..tables.sessions import Kept, Sessions
from ..telling.faults import Faults
from .channels import ArrivalTls
from .denials import Denials
from .entering import Entering
from .refusing import is_nobodys
from .visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxyproto_rs import Listener
    from proxyproto_rs._core import Arrival, _GatewayNumbers

    from ..config import BrokerConfig, UpstreamConfig
    from ..model.events import Observer
    from .door import Check, Door

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")

_AT_ONCE = (
    64  # events between two turns of the event loop, so that a storm of logins holds nothing else up for long
)
_ENDS_A_SECOND = (
    1000  # sessions that a drain ends at most, so that their clients do not come back all at once
)
_END_GRACE = 2.0  # seconds for clients to take their last bytes
_PATIENCE = 4  # the part of `auth_timeout` that a login may wait in a queue; the rest is for the check


class Front:
    """Decides about the logins of a gateway, and keeps the sessions' records. `start` makes the gateway.

    Args:
        config: It must have a `backend`.
        checks: Decide who may come in. They are asked in this order, before any password.
        observer: Is told which clients were refused, came and went.
        node_id: Shown in session records.
    """

    gateway: Gateway

    def __init__(
        self, config: BrokerConfig, *, checks: Sequence[Check], observer: Observer, node_id: str
    ) -> None:
        self._config = config
        self._checks = checks
        self._observer = observer
        kept = KeptUpstream()
        self._kept: Kept = kept
        self.sessions: Sessions = Sessions(kept, node_id)
        kept.sessions = self.sessions
        self._broker: EmbeddedBroker | None = None
        self._denials: Denials | None = None
        self._telling: asyncio.Task[None] | None = None
        self.faults: Faults = Faults(logger)
        self._doors: dict[str, Door] = {}
        self._listeners: dict[str, Listener] = {}
        self._visitors: dict[int, Visitor] = {}
        self._entering = Entering(self.sessions)
        self._asking: Asking | None = None
        self._events: deque[Any] = deque()
        self._all_gone: asyncio.Event | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Login: self._came,
            Welcomed: self._welcomed,
            Refused: self._refused,
            Ended: self._ended,
            ListenerReport: self._reported,
            ServerChange: self._server_changed,
        }

    async def start(self) -> None:
        """Start the gateway's threads, and ask for its events.

        Raises:
            PasswordFileError: A file of `auth` cannot be used.
            OSError: There is no thread or descriptor.
        """
        self._asking = await Asking.open(
            self._config.auth,
            time.monotonic,
            self._config.mqtt.auth_timeout / _PATIENCE,
            self._config.limits.logins_at_once,
        )
        if self._config.backend is not None and self._config.backend.embedded is not None:
            await self._start_broker()
        self.gateway = Gateway(self._options(self._config))
        asyncio.get_running_loop().add_reader(self.gateway.fileno(), self._take)

    async def _start_broker(self) -> None:
        self._broker = await EmbeddedBroker.start(self._config)
        self._kept = self._broker
        self.sessions.kept_by(self._broker)
        self._denials = Denials(self._broker, self.sessions, self._observer)
        self._telling = asyncio.get_running_loop().create_task(self._denials.run())

    def open(self, listener: Listener, door: Door) -> None:
        """Serve a Listener under the rules of `door` until it is closed."""
        self._doors[door.name] = door
        self._listeners[door.name] = listener
        listener.hand_to(
            self.gateway,
            name=door.name,
            max_unauthenticated=self._config.limits.max_unauthenticated,
            channel=door.channel,
        )

    def change(self, config: BrokerConfig) -> None:
        """Put a new configuration in force, for clients that come from now on. It must have been checked."""
        limits = config.limits
        if self._asking is not None:
            self._asking.change(limits.logins_at_once)
        self._config = config
        if self._broker is not None:
            self._broker.change(config.acl)
        self.gateway.update(self._options(config))
        for name, door in self._doors.items():
            self.gateway.change_listener(
                name, max_unauthenticated=limits.max_unauthenticated, channel=door.channel
            )

    def numbers(self) -> _GatewayNumbers:
        """Return the gateway's numbers of now."""
        return self.gateway.stats()

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
        over = min(self._config.mqtt.drain, sessions / _ENDS_A_SECOND)
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
        if self._telling is not None and self._denials is not None and self._broker is not None:
            self._telling.cancel()
            self._denials.tell()
            await self._broker.close()
        if self._asking is not None:
            await self._asking.close()

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
        try:
            self._handlers[type(event)](event)
        except Exception as wrong:  # a fault with one client must not affect others
            self.faults.note(wrong, f"broker-error event={type(event).__name__}")
            if isinstance(event, Login):
                self.gateway.refuse(event.token, "auth-error", "a fault of ours")

    def _came(self, event: Login) -> None:
        visitor = Visitor(event, self._doors[event.arrival.listener], self.gateway)
        self._visitors[event.token] = visitor
        try:
            self._identify(visitor, event.arrival)
            for check in self._checks:
                check(visitor)
            check_limits(visitor, self._config.limits, self._entering)
        except Refuse as refused:
            self._turn_away(visitor, refused)
            return
        if self._asking is None or visitor.certificate_is_login:
            self._enter(visitor, by_upstream=self._asking is None)
        else:
            visitor.task = asyncio.get_running_loop().create_task(self._ask(visitor, self._asking))

    def _welcomed(self, event: Welcomed) -> None:
        visitor = self._visitors[event.token]
        # A server of MQTT 5 must say which id it has chosen. If it does not, ours tells the session from others.
        client_id = event.client_id or visitor.connection.session_id
        record = self.sessions.begin(visitor, client_id)
        visitor.tell(record, event)
        if self._broker is not None:
            record.upstream = None  # there is no server elsewhere
        visitor.record = record
        self._entering.end(visitor)
        self._observer.connected(record)

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
        if visitor is None and connection.address_source == "forwarded":
            refused = _in_our_words(door, connection.client[0], refused)
        self._observer.refused(
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
                upstream=None if self._broker is not None else event.server_address,
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
            self.sessions.finish(visitor, record)
            if self._denials is not None:
                self._denials.left(record)
        visitor.settle()
        if record is not None:
            self._observer.disconnected(record)

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

    async def _ask(self, visitor: Visitor, asking: Asking) -> None:
        timeout = self._config.mqtt.auth_timeout
        since = time.monotonic()
        try:
            try:
                good = await asyncio.wait_for(asking.decide(visitor), timeout)
            finally:
                self._observer.asked(time.monotonic() - since)
        except Refuse as refused:
            self._turn_away(visitor, refused)
        except asyncio.TimeoutError:
            self._turn_away(visitor, Refuse("auth-error", f"no answer in {timeout:g} s"))
        except Exception as wrong:
            self.faults.note(wrong, "broker-error: a login could not be checked")
            self._turn_away(visitor, Refuse("auth-error", "a fault of ours"))
        else:
            self._enter(visitor, by_upstream=not good)

    def _enter(self, visitor: Visitor, *, by_upstream: bool) -> None:
        """Let a client in, unless another user's login with its client id is under way: then after that."""
        forward = by_upstream or self._config.forward_password
        self._entering.in_turn(visitor, lambda: self._admit(visitor, forward_password=forward))

    def _admit(self, visitor: Visitor, *, forward_password: bool) -> None:
        try:
            if self._config.mqtt.client_id_owner == "refuse":
                check_owner(visitor, self.sessions, self._kept)
            check_limits(visitor, self._config.limits, self._entering)
        except Refuse as refused:
            self._turn_away(visitor, refused)
            return
        self._entering.begin(visitor)
        # If the client has gone meanwhile, an event tells of it.
        self.gateway.admit(visitor.token, **visitor.changes(forward_password=forward_password))

    def _turn_away(self, visitor: Visitor, refused: Refuse) -> None:
        visitor.refusal = refused
        self.gateway.refuse(visitor.token, _ANSWERED_AS.get(refused.reason, refused.reason), refused.detail)

    def _gone(self, token: int) -> Visitor:
        visitor = self._visitors.pop(token)
        if not self._visitors and self._all_gone is not None:
            self._all_gone.set()
        return visitor

    def _options(self, config: BrokerConfig) -> dict[str, Any]:
        broker = self._broker
        return gateway_options(
            _upstream(config) if broker is None else upstream_of(broker.address),
            config.mqtt,
            config.limits,
            config.workers,
            secret=None if broker is None else broker.secret,
        )


_ANSWERED_AS = {"denied": "access-denied"}
"""Reasons that are no answer of MQTT, and what the client is told."""

_RECORDED_AS = {"malformed-packet": "malformed-connect"}
"""What ends a session, and here a login: a message that is not binary, in place of the CONNECT or behind it."""

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


def _upstream(config: BrokerConfig) -> UpstreamConfig:
    assert config.backend is not None
    assert config.backend.upstream is not None
    return config.backend.upstream


def _words(event: Refused | Ended) -> str:
    """Return the detail, with the words and the code of the server's last packet."""
    # Of a refusal the words stand in the detail already.
    words = event.reason_string if isinstance(event, Ended) else None
    detail = "; ".join(filter(None, (event.detail, words)))
    code = event.server_code
    return detail if code is None else f"{detail} (code {code:#04x})".strip()


def _age(arrival: Arrival) -> float:
    return max(0.0, time.time() - arrival.at)
