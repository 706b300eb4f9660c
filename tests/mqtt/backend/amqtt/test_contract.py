"""The behaviour of amqtt on which the backend relies, on amqtt alone. The upper version bound moves only if these pass."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.manager import PluginManager
from amqtt.session import ApplicationMessage, Session

from ... import plugins
from ...peers import PINGREQ, PINGRESP, WELCOME, WELCOME_BACK, connect, publish, subscribe, will

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from proxyproto_rs.mqtt.model.login import Connect


class Adapter(ReaderAdapter, WriterAdapter):
    """A connection in memory."""

    def __init__(self, first: bytes) -> None:
        self._stream = asyncio.StreamReader()
        self._stream.feed_data(first)
        self.written: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False
        self.on_write: Any = lambda data: None

    async def read(self, n: int = -1) -> bytes:
        try:
            return await self._stream.readexactly(n)
        except asyncio.IncompleteReadError:
            return b""

    def feed(self, data: bytes) -> None:
        self._stream.feed_data(data)

    def feed_eof(self) -> None:
        self._stream.feed_eof()

    def write(self, data: bytes) -> None:
        self.on_write(data)
        self.written.put_nowait(data)

    async def drain(self) -> None:
        pass

    def get_peer_info(self) -> tuple[str, int]:
        return ("192.0.2.10", 50123)

    def get_ssl_info(self) -> None:
        return None

    async def close(self) -> None:
        self.closed = True


def with_broker(
    test: Callable[[Broker], Coroutine[Any, Any, None]],
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Give a test a broker, and stop it afterwards: no task may be left then."""

    async def run() -> None:
        external = {"type": "external"}
        broker = Broker(
            {"listeners": {"default": dict(external), "ssl": dict(external)}, "plugins": dict(plugins.ALL)}
        )
        await broker.start()
        try:
            await test(broker)
        finally:
            await broker.shutdown()

    run.__name__ = test.__name__
    return run


@contextlib.asynccontextmanager
async def carried(broker: Broker, how: Connect, **hooks: Any) -> AsyncIterator[Adapter]:
    adapter = Adapter(how.encode())
    adapter.__dict__.update(hooks)
    task = asyncio.create_task(broker.external_connected(adapter, adapter, "ssl"))
    try:
        yield adapter
    finally:
        adapter.feed_eof()
        await asyncio.wait_for(task, 5)


def test_version() -> None:
    assert version("amqtt").split(".")[:2] == ["0", "12"]


@with_broker
async def test_default_is_compulsory_and_external_binds_nothing(broker: Broker) -> None:
    with pytest.raises(KeyError, match="default"):
        Broker({"listeners": {"ssl": {"type": "external"}}, "plugins": {}})
    assert all(listener.type is ListenerType.EXTERNAL for listener in broker.listeners_config.values())


def test_adapters_have_these_methods_and_no_others() -> None:
    assert ReaderAdapter.__abstractmethods__ == {"read", "feed_eof"}
    assert WriterAdapter.__abstractmethods__ == {"write", "drain", "get_peer_info", "get_ssl_info", "close"}


@with_broker
async def test_external_connected_carries_until_the_end(broker: Broker) -> None:
    async with carried(broker, connect()) as adapter:
        assert await adapter.written.get() == WELCOME
        adapter.feed(PINGREQ)  # if it ends before it begins to serve, the session stays connected for ever
        assert await adapter.written.get() == PINGRESP
    assert adapter.closed
    assert broker.sessions["dev"][0].transitions.state == "disconnected"


@with_broker
async def test_each_packet_is_one_write(broker: Broker) -> None:
    async with carried(broker, connect()) as adapter:
        assert await adapter.written.get() == WELCOME
        adapter.feed(subscribe("a") + publish("a", b"x"))
        assert await adapter.written.get() == b"\x90\x03\x00\x01\x00"
        assert await adapter.written.get() == publish("a", b"x")


@with_broker
async def test_session_and_handler_stand_in_sessions_before_the_connack(broker: Broker) -> None:
    seen: list[tuple[Session, BrokerProtocolHandler]] = []
    async with carried(
        broker, connect(), on_write=lambda data: seen.append(broker.sessions["dev"])
    ) as adapter:
        await adapter.written.get()
        session, handler = seen[0]
        assert isinstance(session, Session)
        assert isinstance(handler, BrokerProtocolHandler)
        assert handler.reader is adapter


@with_broker
async def test_auth_is_asked_once_through_the_instance_on_the_very_session(broker: Broker) -> None:
    asked: list[Session] = []

    async def answer(*, session: Session) -> dict[Any, Any]:
        asked.append(session)
        return {None: True}

    broker.plugins_manager.map_plugin_auth = answer  # type: ignore[method-assign]
    async with carried(broker, connect(username=None, password=None)) as adapter:
        assert await adapter.written.get() == WELCOME
        assert len(asked) == 1
        assert asked[0] is broker.sessions["dev"][0]


@with_broker
async def test_topics_are_asked_through_the_instance(broker: Broker) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(*, session: Session, topic: str, action: Action) -> dict[Any, Any]:
        asked.append((action.value, topic))
        return {None: True}

    broker.plugins_manager.map_plugin_topic = answer  # type: ignore[method-assign]
    assert broker.plugins_manager.is_topic_filtering_enabled()
    async with carried(broker, connect()) as adapter:
        await adapter.written.get()
        adapter.feed(subscribe("a"))
        await adapter.written.get()
        adapter.feed(publish("a", b"x"))
        await adapter.written.get()
    assert asked == [("subscribe", "a"), ("publish", "a"), ("receive", "a")]


def test_wrapped_methods_take_keywords() -> None:
    assert list(inspect.signature(PluginManager.map_plugin_auth).parameters) == ["self", "session"]
    assert list(inspect.signature(PluginManager.map_plugin_topic).parameters) == [
        "self",
        "session",
        "topic",
        "action",
    ]


@with_broker
async def test_delivery_and_login_walk_the_table_that_subscriptions_shows(broker: Broker) -> None:
    walked: list[str] = []

    class Table(dict[str, Any]):
        def items(self) -> Any:
            walked.append("items")
            return super().items()

        def __iter__(self) -> Any:
            walked.append("keys")
            return super().__iter__()

    broker._subscriptions = Table()
    assert broker.subscriptions is broker._subscriptions
    async with carried(broker, connect()) as adapter:
        await adapter.written.get()
        adapter.feed(subscribe("a"))
        await adapter.written.get()
        assert broker.subscriptions == {"a": [(broker.sessions["dev"][0], 0)]}
        assert walked == ["keys"]  # at login, for the retained messages of everybody's filters
        adapter.feed(publish("a", b"x"))
        await adapter.written.get()
        assert walked[1:] == ["items"]


@with_broker
async def test_messages_go_through_these_two_queues(broker: Broker) -> None:
    delivered: list[Any] = []

    class Watched(asyncio.Queue[Any]):
        def _put(self, item: Any) -> None:
            delivered.append(item)
            super()._put(item)

    broadcasts = broker._broadcast_queue.qsize()
    async with carried(broker, connect()) as adapter:
        await adapter.written.get()
        session, _ = broker.sessions["dev"]
        session.delivered_message_queue = Watched()
        # amqtt waits at the first queue already. A message wakes it, and it looks again.
        session.delivered_message_queue.put_nowait(None)
        adapter.feed(publish("a", b"x") + subscribe("b"))
        await adapter.written.get()
    assert [message.topic for message in delivered if message] == ["a"]
    assert broker._broadcast_queue.qsize() == broadcasts


@with_broker
async def test_the_handlers_methods_are_looked_up_on_the_instance(broker: Broker) -> None:
    called: list[str] = []

    def wrap(data: bytes) -> None:
        _, handler = broker.sessions["dev"]
        if called:
            return
        called.append("connack")
        publish_, wait = handler.mqtt_publish, handler.wait_disconnect

        async def mqtt_publish(*args: Any, **keywords: Any) -> Any:
            called.append("publish")
            return await publish_(*args, **keywords)

        def wait_disconnect() -> Any:
            called.append("serving")
            return wait()

        handler.mqtt_publish = mqtt_publish  # type: ignore[method-assign]
        handler.wait_disconnect = wait_disconnect  # type: ignore[method-assign]

    async with carried(broker, connect(), on_write=wrap) as adapter:
        await adapter.written.get()
        adapter.feed(subscribe("a") + publish("a", b"x"))
        await adapter.written.get()
        await adapter.written.get()
    assert called == ["connack", "serving", "publish"]


@with_broker
async def test_a_queued_message_is_sent_with_retain_and_these_arguments(broker: Broker) -> None:
    how = connect(clean_session=False)
    async with carried(broker, how) as adapter:
        await adapter.written.get()
    session, _ = broker.sessions["dev"]
    session.retained_messages.put_nowait(ApplicationMessage(None, "a", 1, b"x", retain=False))
    async with carried(broker, how) as adapter:
        assert await adapter.written.get() == WELCOME_BACK
        assert await adapter.written.get() == publish("a", b"x", 1, retain=True)
        adapter.feed(b"\x40\x02\x00\x01")


@with_broker
async def test_a_stopped_handler_can_be_detached_and_its_session_moved(broker: Broker) -> None:
    async with carried(broker, connect(clean_session=False)) as adapter:
        await adapter.written.get()
        session, handler = broker.sessions["dev"]
    await handler.stop()
    session.transitions.disconnect()
    assert session.transitions.state == "disconnected"
    handler.detach()
    assert (handler.session, handler.reader, handler.writer) == (None, None, None)
    session.clear_queues()
    del broker.sessions["dev"]
    assert "dev" not in broker._sessions


@with_broker
async def test_waiting_for_answers_can_be_given_up(broker: Broker) -> None:
    async with carried(broker, connect(clean_session=False)) as adapter:
        await adapter.written.get()
        adapter.feed(publish("a", b"x", 2))
        await adapter.written.get()
        _, handler = broker.sessions["dev"]
        (waiter,) = handler._pubrel_waiters.values()
        handler._stop_waiters()
        assert waiter.cancelled()


@with_broker
async def test_wills_can_be_taken_back_and_sent(broker: Broker) -> None:
    async with carried(broker, connect("heir")) as heir, carried(broker, connect(will=will())) as adapter:
        await heir.written.get()
        heir.feed(subscribe("wills"))
        await heir.written.get()
        await adapter.written.get()
        session, _ = broker.sessions["dev"]
        assert (session.will_flag, session.will_topic, session.will_message) == (True, "wills", b"gone")
        session.will_flag = False
        adapter.feed_eof()
        await broker.internal_message_broadcast("wills", b"ours", 0)
        assert await heir.written.get() == publish("wills", b"ours")


@with_broker
async def test_retained_messages_are_kept_by_topic(broker: Broker) -> None:
    await broker.retain_message(None, "a", b"x", 0)
    assert broker.retained_messages["a"].data == b"x"


def test_a_probe_needs_no_state_machine() -> None:
    class Probe(Session):
        def _init_states(self) -> None:
            self.transitions = None  # type: ignore[assignment]

    fields = vars(Probe())
    for name in (
        "remote_address", "remote_port", "client_id", "clean_session", "keep_alive", "username", "password", "ssl_object",
        "attributes", "is_anonymous", "will_flag", "will_topic", "will_message", "will_qos", "will_retain",
        "delivered_message_queue", "retained_messages",
    ):  # fmt: skip
        assert name in fields
