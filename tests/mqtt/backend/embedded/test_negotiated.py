"""What client and broker of MQTT 5 tell each other to keep to: limits, names, codes; packet by packet, and with paho."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt.peers import PINGREQ, PINGRESP, WAIT, dial, packet, running, text

from .test_broker import EVERYBODY
from .test_conformance import OPEN, client, payloads, properties, published, received, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mqtt.peers import Broker, Client

LIMITED = {"backend": {"embedded": {"max_inflight": 5}}, "mqtt": {"max_packet_size": "1KiB"}}


def five(client_id: str = "raw", *, keep_alive: int = 60, clean: bool = True, **of_connect: Any) -> bytes:
    """A CONNECT of MQTT 5 without a user name."""
    head = text("MQTT") + bytes((5, 2 if clean else 0)) + keep_alive.to_bytes(2, "big")
    return packet(0x10, head + packed(PacketTypes.CONNECT, **of_connect) + text(client_id))


def packed(kind: int, **values: Any) -> bytes:
    return bytes(properties(kind, **values).pack())  # type: ignore[no-untyped-call]


def unpacked(kind: int, raw: bytes) -> dict[str, Any]:
    made = Properties(kind)  # type: ignore[no-untyped-call]
    made.unpack(raw)  # type: ignore[no-untyped-call]
    return dict(made.json())  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def logged_in(
    broker: Broker, connect: bytes | None = None
) -> AsyncIterator[tuple[Client, dict[str, Any]]]:
    """A connection that sends what a test says, and the properties of its CONNACK."""
    async with dial(broker.address(), connect or five(), source=None) as raw:
        answer = await raw.packet()
        assert (answer[0], answer[3]) == (0x20, 0), answer
        yield raw, unpacked(PacketTypes.CONNACK, answer[4:])


def message(topic: str, payload: bytes, qos: int, packet_id: int, **values: Any) -> bytes:
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1, text(topic) + identifier + packed(PacketTypes.PUBLISH, **values) + payload)


def subscribe(topic_filter: str, qos: int = 1) -> bytes:
    return packet(0x82, b"\0\1\0" + text(topic_filter) + bytes((qos,)))


async def code_of_the_end(raw: Client) -> int:
    """The reason code of the DISCONNECT that comes, behind which the connection is closed."""
    while (said := await raw.packet()) and said[0] != 0xE0:
        pass
    assert said, "closed without a DISCONNECT"
    assert await raw.end() == b""
    return said[2]


limited = functools.partial(running, **{**EVERYBODY, **LIMITED}, listeners=OPEN)


async def test_the_broker_says_what_it_takes() -> None:
    async with limited() as broker, logged_in(broker) as (_, told):
        assert (told["ReceiveMaximum"], told["MaximumPacketSize"], told["TopicAliasMaximum"]) == (5, 1024, 32)
        # What is not said is there: QoS 2, retained messages, wildcards, shared subscriptions, identifiers of subscriptions.
        about = (
            "MaximumQoS",
            "RetainAvailable",
            "WildcardSubscriptionAvailable",
            "SharedSubscriptionAvailable",
            "SubscriptionIdentifierAvailable",
        )
        assert [told.get(name, 1) for name in about] == [1] * 5


@served
async def test_no_client_is_sent_to_another_server(broker: Broker) -> None:
    async with logged_in(broker) as (_, told):
        assert "ServerReference" not in told


@pytest.mark.parametrize("keep_alive", [0, 60, 65535])
@served
async def test_the_broker_takes_the_keep_alive_of_the_client(keep_alive: int, broker: Broker) -> None:
    async with logged_in(broker, five(keep_alive=keep_alive)) as (_, told):
        assert told.get("ServerKeepAlive", keep_alive) == keep_alive


@served
async def test_a_client_that_says_nothing_is_ended_after_its_keep_alive(broker: Broker) -> None:
    async with logged_in(broker, five(keep_alive=1)) as (raw, _):
        assert await code_of_the_end(raw) == 0x8D


@served
async def test_a_client_without_an_id_gets_one_with_which_it_may_come_back(broker: Broker) -> None:
    async with logged_in(broker, five("", clean=True, SessionExpiryInterval=60)) as (raw, told):
        assigned = told["AssignedClientIdentifier"]
        raw.send(subscribe("a"))
        await raw.packet()
        assert broker.service.sessions.client(assigned) is not None
        raw.send(b"\xe0\0")
        await raw.end()
    again = five(assigned, clean=False, SessionExpiryInterval=60)
    async with dial(broker.address(), again, source=None) as raw:
        assert (await raw.packet())[2:4] == b"\1\0", "the session is present"


@served
async def test_a_topic_alias_from_the_client(broker: Broker) -> None:
    async with client(broker, "one") as one:
        await one.subscribe("a", qos=1)
        await one.publish("a", b"by name", qos=1, properties=published(TopicAlias=32))
        await one.publish("", b"by alias", qos=1, properties=published(TopicAlias=32))
        got = await received(one)
    assert [(str(message.topic), message.payload) for message in got] == [
        ("a", b"by name"),
        ("a", b"by alias"),
    ]


@pytest.mark.parametrize("most", [0, 2])
@served
async def test_topic_aliases_to_the_client(most: int, broker: Broker) -> None:
    async with logged_in(broker, five(TopicAliasMaximum=most)) as (raw, _):
        raw.send(subscribe("a/#", qos=0))
        await raw.packet()
        names: dict[int, str] = {}
        for topic in ["a/1", "a/2", "a/3"] * 2:
            raw.send(message(topic, b"x", 0, 0))
            got = await raw.packet()
            length = int.from_bytes(got[2:4], "big")
            name, alias = (
                got[4 : 4 + length].decode(),
                unpacked(PacketTypes.PUBLISH, got[4 + length :]).get("TopicAlias"),
            )
            if name and alias is not None:
                names[alias] = name
            assert topic in (name, names.get(alias or 0))
        assert max(names, default=0) == most


@served
async def test_an_alias_that_stands_for_nothing_ends_the_connection(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        raw.send(message("", b"x", 0, 0, TopicAlias=7))
        await raw.end()
    await broker.until(lambda: len(broker.service.sessions) == 0)


@pytest.mark.xfail(strict=True, reason="rmqtt 0.24 takes an alias above its own maximum")
@served
async def test_an_alias_above_the_brokers_maximum_ends_the_connection(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        raw.send(message("a", b"x", 1, 1, TopicAlias=33))
        assert (await raw.packet())[:1] != b"\x40"


@served
async def test_no_more_are_sent_than_the_client_acknowledges(broker: Broker) -> None:
    async with logged_in(broker, five(ReceiveMaximum=2)) as (raw, _), client(broker, "two") as two:
        raw.send(subscribe("a"))
        await raw.packet()
        for number in range(4):
            await two.publish("a", b"%d" % number, qos=1)
        first = [await raw.packet() for _ in range(2)]
        raw.send(PINGREQ)
        assert await raw.packet() == PINGRESP, "the third does not come"
        for number, expected in enumerate([b"2", b"3"]):
            raw.send(packet(0x40, first[number][5:7]))
            assert (await raw.packet())[-1:] == expected


async def test_a_client_that_sends_more_than_the_broker_takes_at_once_is_ended() -> None:
    async with limited() as broker, logged_in(broker) as (raw, _):
        for number in range(6):
            raw.send(message("a", b"x", 2, number + 1))
        assert [(await raw.packet())[:1] for _ in range(5)] == [b"\x50"] * 5
        rest = await raw.end()
        assert rest[:1] in (b"", b"\xe0"), "the sixth has no PUBREC"


@pytest.mark.parametrize(("size", "code"), [(1000, None), (1100, 0x95)])
async def test_the_largest_packet_of_a_client(size: int, code: int | None) -> None:
    async with limited() as broker, logged_in(broker) as (raw, _):
        raw.send(message("a", b"x" * size, 1, 1))
        if code is None:
            assert (await raw.packet())[0] == 0x40
        else:
            assert await code_of_the_end(raw) == code


@served
async def test_a_request_and_its_response(broker: Broker) -> None:
    async with client(broker, "asks") as asks, client(broker, "answers") as answers:
        await answers.subscribe("questions", qos=1)
        await asks.subscribe("to/asks", qos=1)
        about = published(ResponseTopic="to/asks", CorrelationData=b"\x00\xff7")
        await asks.publish("questions", b"2+2", qos=1, properties=about)
        question = await asyncio.wait_for(anext(aiter(answers.messages)), WAIT)
        asked: Any = question.properties
        back = published(CorrelationData=asked.CorrelationData)
        await answers.publish(asked.ResponseTopic, b"4", qos=1, properties=back)
        response = await asyncio.wait_for(anext(aiter(asks.messages)), WAIT)
    told: Any = response.properties
    assert (response.payload, told.CorrelationData) == (b"4", b"\x00\xff7")


@served
async def test_of_those_who_share_a_subscription_one_gets_each_message(broker: Broker) -> None:
    async with (
        client(broker, "one") as one,
        client(broker, "two") as two,
        client(broker, "all") as everything,
    ):
        for each in (one, two):
            await each.subscribe("$share/group/a/#", qos=1)
        await everything.subscribe("a/#", qos=1)
        for number in range(10):
            await everything.publish("a/b", b"%d" % number, qos=1)
        expected = [b"%d" % number for number in range(10)]
        assert payloads(await received(everything)) == expected
        shared = [payloads(await received(each)) for each in (one, two)]
        assert sorted(shared[0] + shared[1]) == expected
        assert all(shared), "both get some"


@served
async def test_subscriptions_that_overlap_tell_all_their_identifiers(broker: Broker) -> None:
    async with client(broker, "one") as one:
        for identifier, topic_filter in [(7, "a/+"), (8, "a/b")]:
            about = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier)
            await one.subscribe(topic_filter, qos=1, properties=about)
        await one.publish("a/b", b"1", qos=1)
        got = await received(one)
    about_each: list[Any] = [message.properties for message in got]
    # One message with both, or one for each, is as MQTT allows it.
    assert sorted(number for about in about_each for number in about.SubscriptionIdentifier) == [7, 8]


@served
async def test_the_reason_codes_of_subscriptions(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        filters = [("a", 0), ("b", 1), ("c", 2)]
        body = b"".join(text(name) + bytes((qos,)) for name, qos in filters)
        assert (await raw.ask(packet(0x82, b"\0\1\0" + body)))[5:] == b"\0\1\2"
        assert (await raw.ask(packet(0xA2, b"\0\2\0" + text("a"))))[5:] == b"\0"


@pytest.mark.xfail(strict=True, reason="rmqtt 0.24 answers 0 where no subscription existed")
@served
async def test_the_end_of_a_subscription_that_was_not_there(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        assert (await raw.ask(packet(0xA2, b"\0\2\0" + text("nothing"))))[5:] == b"\x11"


@pytest.mark.xfail(strict=True, reason="rmqtt 0.24 answers 0 to a PUBREL whose packet id it does not know")
@served
async def test_a_pubrel_of_an_unknown_message(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        assert (await raw.ask(packet(0x62, b"\0\x63")))[:5] == b"\x70\x04\0\x63\x92"


@served
async def test_a_client_whose_session_is_taken_over_is_told(broker: Broker) -> None:
    async with logged_in(broker) as (first, _), logged_in(broker):
        assert await code_of_the_end(first) == 0x8E


@served
async def test_the_session_expiry_may_change_at_the_end(broker: Broker) -> None:
    async with logged_in(broker, five(clean=False, SessionExpiryInterval=600)) as (raw, _):
        raw.send(subscribe("a"))
        await raw.packet()
        raw.send(packet(0xE0, b"\0" + packed(PacketTypes.DISCONNECT, SessionExpiryInterval=0)))
        await raw.end()
    await broker.until(lambda: broker.service.sessions.client("raw") is None)
    assert broker.service.sessions.record("raw") is None, "the list shows it no more"
    async with dial(broker.address(), five(clean=False), source=None) as raw:
        assert (await raw.packet())[2:4] == b"\0\0", "no session is present"


@served
async def test_a_kept_session_may_be_kept_for_another_time_at_the_end(broker: Broker) -> None:
    async with logged_in(broker, five(clean=False, SessionExpiryInterval=600)) as (raw, _):
        raw.send(packet(0xE0, b"\0" + packed(PacketTypes.DISCONNECT, SessionExpiryInterval=60)))
        await raw.end()
    await broker.until(lambda: broker.service.sessions.client("raw") is None)
    record = broker.service.sessions.record("raw")
    assert record is not None
    assert record.session_expiry_interval == 60


@served
async def test_another_authentication_after_the_login_ends_the_connection(broker: Broker) -> None:
    async with logged_in(broker) as (raw, _):
        raw.send(packet(0xF0, b"\x19\0"))
        assert (await raw.end())[:1] in (b"", b"\xe0")


@served
async def test_paho_is_told_the_same(broker: Broker) -> None:
    told = await asyncio.to_thread(Paho.log_in, broker.address())
    try:
        assert told.connack.AssignedClientIdentifier
        assert (told.connack.ReceiveMaximum, told.connack.TopicAliasMaximum) == (32, 32)
        for number in range(2):
            about = published(TopicAlias=1, UserProperty=[("a", "1")], MessageExpiryInterval=60)
            told.client.publish("" if number else "a", b"%d" % number, 1, properties=about)
        got = [await asyncio.to_thread(told.messages.get, timeout=WAIT) for _ in range(2)]
        # paho gives topics as they come: the second has the alias of the first.
        assert [(message.topic, message.payload) for message in got] == [("a", b"0"), ("", b"1")]
        assert got[0].properties.TopicAlias == got[1].properties.TopicAlias == 1
        assert got[1].properties.UserProperty == [("a", "1")]
    finally:
        await asyncio.to_thread(told.close)


@dataclass
class Paho:
    """A client that has logged in without an id and subscribed to `a`."""

    client: paho.Client
    connack: Any
    messages: queue.Queue[Any]

    @classmethod
    def log_in(cls, address: tuple[str, int]) -> Paho:
        made = paho.Client(CallbackAPIVersion.VERSION2, "", protocol=paho.MQTTv5, reconnect_on_failure=False)
        answers: queue.Queue[Any] = queue.Queue()
        messages: queue.Queue[Any] = queue.Queue()
        made.on_connect = lambda *told: answers.put(told[4])
        made.on_subscribe = lambda *_: answers.put(None)
        made.on_message = lambda *told: messages.put(told[2])
        made.connect(*address, properties=properties(PacketTypes.CONNECT, TopicAliasMaximum=5))
        made.loop_start()
        connack = answers.get(timeout=WAIT)
        made.subscribe("a", 1)
        answers.get(timeout=WAIT)
        return cls(made, connack, messages)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets()  # paho leaves a pair of them to the garbage collector
