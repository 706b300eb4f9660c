"""amqtt behind the gate.

Only this file and amqtt_link.py know amqtt; tests name everything of amqtt that they rely on.

amqtt sees a client as a pair of adapters (amqtt_link.py). They deliver whole packets and end when the client
does. Where amqtt is wrong at login, delivery or end, these files wrap its methods to correct it.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, cast

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.session import Session

from .amqtt_link import AmqttLink
from .config import ConfigError, Problem
from .faults import Faults
from .reasons import Refuse
from .subscriptions import Subscriptions
from .topics import matches
from .watched_queue import WatchedQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .backend import Link
    from .config import AmqttConfig
    from .connection import Connection

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt.amqtt")

ATTRIBUTE = "proxyproto_rs.connection"


class AmqttBackend:
    """Implements `backend.Backend` on an amqtt Broker that has not been started.

    Every listener name given to the gate must be one of the broker's own, of type external.
    """

    def __init__(self, broker: Broker) -> None:
        if broker.transitions.state != "new":
            raise RuntimeError(
                "the broker has been started: make its Gate before, so that nothing passes beside it"
            )
        self.broker = broker
        self.denied: Callable[[str, Any, str], None] = _nobody_asked
        self.subscribers: Subscriptions = Subscriptions()
        self.broadcasts: WatchedQueue = WatchedQueue()
        # amqtt has both under private names only. Both are still empty, because the broker has not started.
        broker._subscriptions = cast("Any", self.subscribers)
        broker._broadcast_queue = self.broadcasts
        self._plugins = broker.plugins_manager
        self._ask_auth = self._plugins.map_plugin_auth
        self._ask_topic = self._plugins.map_plugin_topic
        self._plugins.map_plugin_auth = self._answer_auth  # type: ignore[method-assign]
        self._plugins.map_plugin_topic = self._watch_topic  # type: ignore[method-assign]
        self._admitted: dict[str, AmqttLink] = {}
        self._faults = Faults(logger)
        self.held_back = 0
        """How often a publisher was not read because more than 1,000 messages were waiting to be passed on."""
        self.lost = 0
        """Messages of ended clients that could not be passed on in time."""

    async def start(self) -> None:
        """Start the broker."""
        await self.broker.start()

    async def stop(self) -> None:
        """Shut the broker down."""
        await self.broker.shutdown()

    async def authenticate(self, link: Link) -> None:
        """Ask the operator's plugins about a probe session, which amqtt does not know."""
        probe = _probe(link)
        answers: dict[Any, Any] = {None: True}
        if not link.certificate_is_login:
            probe.password = _password(link)
            try:
                answers = dict(await self._ask_auth(session=probe))
            except Exception as wrong:
                raise _plugin_failed(wrong) from wrong
            said = [answer for answer in answers.values() if answer is not None]
            if not all(said):
                raise Refuse("bad-credentials", "an auth plugin said no")
            if not said:
                raise Refuse("bad-credentials", "no auth plugin said yes")
        link.backend_state = (probe, answers)

    async def check_will(self, link: Link) -> None:
        """Ask the operator's topic plugins about the will. amqtt itself does not ask."""
        will = link.connect.will
        assert will is not None
        probe, _ = link.backend_state
        if not await self._permits(probe, will.topic, Action.PUBLISH):
            raise Refuse("access-denied", f"the will's topic {will.topic[:100]!r} may not be published to")

    async def carry(self, link: Link) -> None:
        """Hand the client to `Broker.external_connected`, and clean up afterwards."""
        client_id = link.connect.client_id
        self._forget_clean(client_id)
        # No local name may hold the probe: this frame lives as long as the connection, and a probe takes 7 KB.
        ours = AmqttLink(self, link, *link.backend_state)
        link.backend_state = None
        self._admitted[client_id] = ours
        try:
            await ours.run(self.broker)
        finally:
            if self._admitted.get(client_id) is ours:
                del self._admitted[client_id]
            await ours.settle(self.broker)

    def has_session(self, client_id: str) -> bool:
        """Whether amqtt keeps a session of that client id."""
        return client_id in self.broker.sessions

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """The topic filters of a client and their QoS."""
        return self.subscribers.of(client_id)

    async def forget(self, client_id: str) -> None:
        """Drop a session, its subscriptions and its queued messages."""
        session, _ = self.broker.sessions.pop(client_id, (None, None))
        self.subscribers.drop(client_id)
        if session is not None:
            session.clear_queues()

    async def may_receive(self, session: Session, topic: str) -> bool:
        """Whether a retained message is for this client: one of its filters matches, and the plugins allow it."""
        if not any(matches(topic, name) for name in self.subscribers.of(session.client_id or "")):
            return False
        return await self._permits(session, topic, Action.RECEIVE)

    def is_retained(self, topic: str, data: object) -> bool:
        """Whether this is the topic's retained message, and not one that waited for the client (MQTT-3.3.1-9)."""
        retained = self.broker.retained_messages.get(topic)
        return retained is not None and retained.data is data

    def not_delivered(self, wrong: Exception, connection: Connection) -> None:
        """Log a delivery that failed while its client was connected, as one that the client never acknowledged."""
        logger.debug("not delivered to %s:%s: %r", *connection.client, wrong)

    async def _permits(self, session: Session, topic: str, action: Any) -> bool:
        if not self._plugins.is_topic_filtering_enabled():
            return True
        try:
            answers = await self._ask_topic(session=session, topic=topic, action=action)
        except Exception as wrong:
            raise _plugin_failed(wrong) from wrong
        return all(answers.values())

    def _forget_clean(self, client_id: str) -> None:
        # A clean session ends with its connection (MQTT-3.1.2-6), but amqtt would resume it a second later.
        session, _ = self.broker.sessions.get(client_id, (None, None))
        if session is not None and session.clean_session:
            del self.broker.sessions[client_id]
            self.subscribers.drop(client_id)
            session.clear_queues()

    # These replace methods of the plugin manager.

    async def _answer_auth(self, *, session: Session) -> dict[Any, Any]:
        """Answer amqtt's own question from memory, and fill in what amqtt leaves out of its session."""
        admitted = self._admitted.get(session.client_id or "")
        if admitted is None or admitted.answered:
            return await self._ask_auth(session=session)
        return admitted.answer_auth(session)

    async def _watch_topic(self, *, session: Session, topic: str, action: Action) -> dict[Any, Any]:
        answers: dict[Any, Any] = {None: False}
        try:
            answers = dict(await self._ask_topic(session=session, topic=topic, action=action))
        except Exception as wrong:
            self._faults.note(wrong, f"a topic plugin failed, which is taken as a no: topic={topic[:100]!r}")
        if action is not Action.RECEIVE and not all(answers.values()):
            self.denied(
                session.client_id or "", "publish" if action is Action.PUBLISH else "subscribe", topic
            )
        return answers


def broker_of(config: AmqttConfig, listeners: Iterable[str]) -> Broker:
    """Build amqtt's broker, which binds no port itself. Raises ConfigError for a plugin that fails."""
    external = {"type": "external"}
    # amqtt needs "default". With the other names, amqtt's own log lines name the right listener.
    names = {"default": external, **dict.fromkeys(listeners, external)}
    try:
        return Broker(
            {
                "listeners": {name: dict(options) for name, options in names.items()},
                "session_expiry_interval": config.session_expiry_interval or None,
                "plugins": config.plugin_options(),
            }
        )
    except Exception as wrong:
        path = ("amqtt", "plugins", *_plugin_at_fault(wrong))
        raise ConfigError([Problem("", path, f"amqtt says: {wrong.__cause__ or wrong}")]) from wrong


def _plugin_at_fault(wrong: Exception) -> tuple[str, ...]:
    # amqtt's error often says nothing, not even the plugin's class.
    for frame, _ in traceback.walk_tb(wrong.__traceback__):
        if isinstance(path := frame.f_locals.get("plugin_path"), str):
            return (path,)
    return ()


def _nobody_asked(client_id: str, action: Any, topic: str) -> None:
    """Do nothing. It stands for `denied` until a gate sets it."""


class _Probe(Session):
    """A Session for questions to plugins. It lacks amqtt's state machine, which takes 140 us to build."""

    transitions: Any = None

    def _init_states(self) -> None:
        self.transitions = _NEW

    def __repr__(self) -> str:
        return f"Session(clientId={self.client_id}, state=new)"


class _NewState:
    state = "new"

    @staticmethod
    def is_connected() -> bool:
        return False


_NEW = _NewState()


def _probe(link: Link) -> Session:
    probe, connect, connection = _Probe(), link.connect, link.connection
    probe.client_id = connect.client_id
    probe.clean_session = connect.clean_session
    probe.keep_alive = connect.keep_alive
    probe.remote_address, probe.remote_port = connection.client
    probe.ssl_object = link.ssl_object
    probe.username = link.username
    if (will := connect.will) is not None:
        probe.will_flag = True
        probe.will_topic, probe.will_message = will.topic, will.message
        probe.will_qos, probe.will_retain = will.qos, will.retain
    probe.attributes[ATTRIBUTE] = connection
    return probe


def _password(link: Link) -> str | None:
    try:
        return None if link.connect.password is None else link.connect.password.decode()
    except UnicodeDecodeError:
        # MQTT allows any bytes, but amqtt's plugins take text. A repaired text would be another password.
        raise Refuse("bad-credentials", "the password is not UTF-8") from None


def _plugin_failed(wrong: Exception) -> Refuse:
    return Refuse("auth-error", f"a plugin failed: {wrong!r}"[:255])
