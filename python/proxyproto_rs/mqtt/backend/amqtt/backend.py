"""amqtt behind the gate.

amqtt sees a client as a pair of adapters (link.py). They deliver whole packets and end when the client does.
Where amqtt is wrong at login, delivery or end, this folder wraps its methods to correct it.
tests/mqtt/backend/amqtt/test_contract.py has a test for everything of amqtt that the folder relies on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin
from amqtt.session import Session

from ...model.reasons import Refuse
from ...policy.passwords import PATIENCE, PasswordFile
from ...telling.faults import Faults
from .link import AmqttLink
from .shared import Shared, plugin_failed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..protocol import Link

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt.amqtt")

ATTRIBUTE = "proxyproto_rs.connection"


class AmqttBackend:
    """Implements `backend.Backend` on an amqtt Broker that has not been started.

    Every listener name given to the gate must be one of the broker's own, of type external.
    """

    def __init__(self, broker: Broker) -> None:
        self._shared = Shared(broker)
        self.denied: Callable[[str, Any, str], None] = _nobody_asked
        plugins = broker.plugins_manager
        self._ask_auth = plugins.map_plugin_auth
        self._ask_topic = plugins.map_plugin_topic
        plugins.map_plugin_auth = self._answer_auth  # type: ignore[method-assign]
        plugins.map_plugin_topic = self._watch_topic  # type: ignore[method-assign]
        self._admitted: dict[str, AmqttLink] = {}
        self._faults = Faults(logger)
        self.bounds_logins: bool = all(map(_bounds_logins, plugins.plugins))
        """Whether passwords are checked by PasswordFile alone, which has a queue of its own for slow checks."""

    @property
    def held_back(self) -> int:
        """How often a publisher was not read because more than 1,000 messages were waiting to be passed on."""
        return self._shared.held_back

    @property
    def lost(self) -> int:
        """Messages of ended clients that could not be passed on in time."""
        return self._shared.lost

    async def start(self) -> None:
        """Start the broker."""
        await self._shared.broker.start()

    async def stop(self) -> None:
        """Shut the broker down."""
        await self._shared.broker.shutdown()

    async def authenticate(self, link: Link) -> None:
        """Ask the operator's plugins about a probe session, which amqtt does not know."""
        probe = _probe(link)
        answers: dict[Any, Any] = {None: True}
        if not link.certificate_is_login:
            probe.password = _password(link)
            probe.attributes[PATIENCE] = link.patience
            try:
                answers = dict(await self._ask_auth(session=probe))
            except Refuse:
                raise
            except Exception as wrong:
                raise plugin_failed(wrong) from wrong
            probe.attributes.pop(PATIENCE, None)  # it is no fact about the session
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
        if will.topic.startswith("$"):
            # A bridge of Mosquitto has such a will, and its address must not be banned for it.
            raise Refuse(
                "access-denied",
                f"the will's topic {will.topic[:100]!r} starts with $, where only the broker publishes:"
                " for a bridge of Mosquitto set `notifications false`",
            )
        probe, _ = link.backend_state
        if not await self._shared.permits(probe, will.topic, Action.PUBLISH):
            raise Refuse("access-denied", f"the will's topic {will.topic[:100]!r} may not be published to")

    async def carry(self, link: Link) -> None:
        """Hand the client to `Broker.external_connected`, and clean up afterwards."""
        client_id = link.connect.client_id
        self._shared.forget_clean(client_id)
        # No local name may hold the probe: this frame lives as long as the connection, and a probe takes 7 KB.
        ours = AmqttLink(self._shared, link, *link.backend_state)
        link.backend_state = None
        self._admitted[client_id] = ours
        try:
            await ours.run()
        finally:
            if self._admitted.get(client_id) is ours:
                del self._admitted[client_id]
            await ours.settle()

    def has_session(self, client_id: str) -> bool:
        """Whether amqtt keeps a session of that client id."""
        return client_id in self._shared.broker.sessions

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """The topic filters of a client and their QoS."""
        return self._shared.subscribers.of(client_id)

    async def forget(self, client_id: str) -> None:
        """Drop a session, its subscriptions and its queued messages."""
        self._shared.forget(client_id)

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


def _nobody_asked(client_id: str, action: Any, topic: str) -> None:
    """Do nothing. It stands for `denied` until a gate sets it."""


def _bounds_logins(plugin: object) -> bool:
    if isinstance(plugin, BaseAuthPlugin):
        return type(plugin).authenticate is PasswordFile.authenticate
    return isinstance(plugin, BasePlugin)  # amqtt wraps what it finds by entry points


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
