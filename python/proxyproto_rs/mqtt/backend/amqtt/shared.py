"""amqtt's broker: how it is made, and what all clients on it share."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, cast

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.session import Session

from ...config import ConfigError, Problem
from ...model.reasons import Refuse
from .subscriptions import Subscriptions
from .topics import matches
from .watched_queue import WatchedQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...config import AmqttConfig
    from ...model.connection import Connection

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt.amqtt")


class Shared:
    """An amqtt Broker that has not been started, with its tables of subscriptions and messages replaced by ours."""

    def __init__(self, broker: Broker) -> None:
        if broker.transitions.state != "new":
            raise RuntimeError(
                "the broker has been started: make its Gate before, so that nothing passes beside it"
            )
        self.broker = broker
        self.subscribers: Subscriptions = Subscriptions()
        self.broadcasts: WatchedQueue = WatchedQueue()
        # amqtt has both under private names only. Both are still empty, because the broker has not started.
        broker._subscriptions = cast("Any", self.subscribers)
        broker._broadcast_queue = self.broadcasts
        # The backend replaces this method, which then also reports what it denies.
        self._ask_topic = broker.plugins_manager.map_plugin_topic
        self.held_back = 0
        """How often a publisher was not read because more than 1,000 messages were waiting to be passed on."""
        self.lost = 0
        """Messages of ended clients that could not be passed on in time."""

    async def may_receive(self, session: Session, topic: str) -> bool:
        """Whether a retained message is for this client: one of its filters matches, and the plugins allow it."""
        if not any(matches(topic, name) for name in self.subscribers.of(session.client_id or "")):
            return False
        return await self.permits(session, topic, Action.RECEIVE)

    def is_retained(self, topic: str, data: object) -> bool:
        """Whether this is the topic's retained message, and not one that waited for the client (MQTT-3.3.1-9)."""
        retained = self.broker.retained_messages.get(topic)
        return retained is not None and retained.data is data

    def not_delivered(self, wrong: Exception, connection: Connection) -> None:
        """Log a delivery that failed while its client was connected, as one that the client never acknowledged."""
        logger.debug("not delivered to %s:%s: %r", *connection.client, wrong)

    async def permits(self, session: Session, topic: str, action: Any) -> bool:
        """Ask the operator's topic plugins. Raises Refuse (`auth-error`) if one fails."""
        if not self.broker.plugins_manager.is_topic_filtering_enabled():
            return True
        try:
            answers = await self._ask_topic(session=session, topic=topic, action=action)
        except Exception as wrong:
            raise plugin_failed(wrong) from wrong
        return all(answers.values())

    def forget(self, client_id: str) -> None:
        """Drop a session, its subscriptions and its queued messages."""
        session, _ = self.broker.sessions.pop(client_id, (None, None))
        self.subscribers.drop(client_id)
        if session is not None:
            session.clear_queues()

    def forget_clean(self, client_id: str) -> None:
        """Drop a clean session, which ends with its connection (MQTT-3.1.2-6). amqtt would resume it a second later."""
        session, _ = self.broker.sessions.get(client_id, (None, None))
        if session is not None and session.clean_session:
            self.forget(client_id)


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


def plugin_failed(wrong: Exception) -> Refuse:
    """Return the refusal of a login whose plugin has raised an exception."""
    return Refuse("auth-error", f"a plugin failed: {wrong!r}"[:255])


def _plugin_at_fault(wrong: Exception) -> tuple[str, ...]:
    # amqtt's error often says nothing, not even the plugin's class.
    for frame, _ in traceback.walk_tb(wrong.__traceback__):
        if isinstance(path := frame.f_locals.get("plugin_path"), str):
            return (path,)
    return ()
