"""Delivery through amqtt: queues of absent clients, slow ones, unacknowledged messages, early ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.backend.amqtt import link as amqtt_link
from proxyproto_rs.mqtt.backend.amqtt.backend import AmqttBackend
from proxyproto_rs.mqtt.backend.amqtt.shared import broker_of
from proxyproto_rs.mqtt.config import AmqttConfig

from ...peers import (
    DISCONNECT,
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    Message,
    connect,
    dial,
    log_in,
    packet,
    publish,
    running,
    subscribe,
    will,
)

if TYPE_CHECKING:
    from pathlib import Path

KEPT = connect("kept", clean_session=False)


async def test_an_absent_clients_queue_larger_than_its_send_buffer_arrives_whole() -> None:
    async with running(mqtt={"max_send_buffer": 65536}) as broker:
        async with log_in(broker.address(), KEPT) as client:
            await client.ask(subscribe("a", qos=1))
            client.send(DISCONNECT)
            await client.end()
        async with log_in(broker.address(), connect("pub"), source=OTHER) as publisher:
            for number in range(100):
                assert (
                    await publisher.ask(publish("a", bytes(20_000) + str(number).encode(), 1))
                    == b"\x40\x02\x00\x01"
                )
            session, _ = broker.service.broker.sessions["kept"]
            await broker.until(lambda: session.retained_messages.qsize() == 100)
        async with log_in(broker.address(), KEPT) as client:
            assert client.connack == WELCOME_BACK
            received = []
            for _ in range(100):
                message = await client.message()
                assert not message.retain  # it was queued, not retained (MQTT-3.3.1-9)
                received.append(int(message.payload[20_000:]))
            assert sorted(received) == list(range(100))
            assert await client.ask(PINGREQ) == PINGRESP


async def test_a_subscriber_that_does_not_read_is_ended() -> None:
    async with (
        running(mqtt={"max_send_buffer": 100_000}) as broker,
        log_in(broker.address(), connect("deaf", clean_session=False)) as deaf,
        log_in(broker.address(), connect("pub"), source=OTHER) as publisher,
    ):
        await deaf.ask(subscribe("a"))
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while broker.service.sessions.connected == 2:
            publisher.send(*[publish("a", bytes(60_000))] * 20)
            assert await publisher.ask(PINGREQ) == PINGRESP
        record = broker.service.sessions.record("deaf")
        assert record is not None
        assert record.disconnect_reason == "slow-consumer"


async def test_new_messages_behind_a_queue_that_is_not_read_are_bounded() -> None:
    async with running(mqtt={"max_send_buffer": 100_000}) as broker:
        async with log_in(broker.address(), KEPT) as client:
            await client.ask(subscribe("a", qos=1))
            client.send(DISCONNECT)
            await client.end()
        async with log_in(broker.address(), connect("pub"), source=OTHER) as publisher:
            for _ in range(300):
                await publisher.ask(publish("a", bytes(60_000), 1))
            async with log_in(broker.address(), KEPT) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                while broker.service.sessions.connected == 2:
                    publisher.send(*[publish("a", bytes(60_000))] * 5)
                    assert await publisher.ask(PINGREQ) == PINGRESP
                record = broker.service.sessions.record("kept")
                assert record is not None
                assert record.disconnect_reason == "slow-consumer"
        session, _ = broker.service.broker.sessions["kept"]
        assert (
            session.retained_messages.qsize() >= 290
        )  # what was not acknowledged waits for the next connection


async def test_what_was_not_acknowledged_comes_again() -> None:
    async with running() as broker:
        async with (
            log_in(broker.address(), KEPT) as client,
            log_in(broker.address(), connect("pub")) as publisher,
        ):
            await client.ask(subscribe("a", qos=1))
            assert await publisher.ask(publish("a", b"x", 1)) == b"\x40\x02\x00\x01"
            assert Message.of(await client.packet()).payload == b"x"
            # It leaves without an acknowledgement.
        await broker.until(lambda: not broker.service.sessions.connected)
        async with log_in(broker.address(), KEPT) as client:
            assert (await client.message()).payload == b"x"


async def test_a_clean_session_keeps_nothing_and_is_not_resumed() -> None:
    async with running() as broker:
        async with log_in(broker.address(), connect("kept")) as client:
            await client.ask(subscribe("a", qos=1))
            client.send(DISCONNECT)
            await client.end()
        async with log_in(broker.address(), KEPT) as client:
            assert client.connack == WELCOME
            client.send(publish("a", b"x", 1))
            assert await client.packet() == b"\x40\x02\x00\x01"
            assert await client.ask(PINGREQ) == PINGRESP


async def test_published_and_gone_in_one_segment_is_delivered() -> None:
    async with running() as broker, log_in(broker.address(), connect("sub")) as subscriber:
        await subscriber.ask(subscribe("a", qos=1))
        for keep_alive in (0, 60):
            for end in (DISCONNECT, b""):
                messages = [publish("a", str(number).encode(), 1, number + 1) for number in range(50)]
                raw = connect("hasty", keep_alive=keep_alive).encode() + b"".join(messages) + end
                async with dial(broker.address(), raw) as client:
                    client.writer.write_eof()
                    received = [(await subscriber.message()).payload for _ in range(50)]
                    await client.end()
                assert received == [str(number).encode() for number in range(50)]
        assert broker.service.gate.backend.lost == 0  # type: ignore[attr-defined]


async def test_a_client_that_leaves_while_amqtt_waits_for_old_answers_is_let_go() -> None:
    """At the next login the broker waits for the PUBREL of an open QoS 2 message, before it serves the client."""
    async with running() as broker, log_in(broker.address(), connect("heir"), source=OTHER) as heir:
        await heir.ask(subscribe("wills"))
        async with log_in(broker.address(), KEPT) as client:
            assert await client.ask(publish("a", b"x", 2)) == packet(0x50, b"\x00\x01")
        await broker.until(lambda: broker.service.sessions.connected == 1)
        async with log_in(broker.address(), connect("kept", clean_session=False, will=will())) as client:
            assert client.connack == WELCOME_BACK
            assert await client.packet() == packet(0x50, b"\x00\x01")
        assert (await heir.message()).payload == b"gone"
        await broker.until(lambda: broker.service.sessions.connected == 1)
        record = broker.service.sessions.record("kept")
        assert record is not None
        assert record.disconnect_reason == "connection-lost"
        session, _ = broker.service.broker.sessions["kept"]
        assert session.transitions.state == "disconnected"


async def test_qos_2_both_ways() -> None:
    async with running() as broker, log_in(broker.address()) as client:
        await client.ask(subscribe("a", qos=2))
        client.send(publish("a", b"x", 2, 9))
        assert await client.packet() == packet(0x50, b"\x00\x09")
        client.send(packet(0x62, b"\x00\x09"))
        seen = {(await client.packet())[0] >> 4: None for _ in range(2)}
        assert set(seen) == {7, 3}  # PUBCOMP, and the message
        client.send(packet(0x50, b"\x00\x01"))
        assert await client.packet() == packet(0x62, b"\x00\x01")
        client.send(packet(0x70, b"\x00\x01"))
        assert await client.ask(PINGREQ) == PINGRESP


async def test_an_unanswered_delivery_is_no_unhandled_error() -> None:
    async with running() as broker, log_in(broker.address(), connect("retainer")) as retainer:
        assert await retainer.ask(publish("r", b"x", 1, retain=True)) == b"\x40\x02\x00\x01"
        async with log_in(broker.address(), KEPT) as client:
            client.send(subscribe("r", qos=1))
            assert (await client.packet())[0] == 0x90
            assert Message.of(await client.packet()).retain
            backend = broker.service.gate.backend
            link = backend._admitted["kept"]  # type: ignore[attr-defined]
            assert isinstance(link, amqtt_link.AmqttLink)
            handler = link._handler
            assert handler is not None
            for waiter in handler._puback_waiters.values():
                waiter.set_exception(TimeoutError("as amqtt says after 5 s"))
            assert await client.ask(PINGREQ) == PINGRESP
            await asyncio.sleep(0)


async def test_a_publisher_is_held_back_while_there_is_too_much_to_pass_on() -> None:
    async with running() as broker, log_in(broker.address(), connect("fast", keep_alive=0)) as fast:
        backend = broker.service.gate.backend
        fast.send(*[publish("nobody/listens", b"x")] * 3000)
        assert await fast.ask(PINGREQ) == PINGRESP
        assert backend.held_back > 0  # type: ignore[attr-defined]


async def test_a_topic_plugin_that_fails_says_no() -> None:
    async with running() as broker, log_in(broker.address(), connect(username="boom-topic")) as client:
        assert await client.ask(subscribe("a")) == b"\x90\x03\x00\x01\x80"
        assert broker.service.metrics.acl_denied["subscribe"] == 1
        async with log_in(broker.address(), connect("w", username="boom-topic", will=will())) as other:
            assert other.connack == b"\x20\x02\x00\x03"


BOUNDED = [
    ("password-file", ["proxyproto_rs.mqtt.PasswordFile"], True),
    ("and-topics", ["proxyproto_rs.mqtt.PasswordFile", "mqtt.plugins.Topics"], True),
    ("and-other-passwords", ["proxyproto_rs.mqtt.PasswordFile", "mqtt.plugins.Passwords"], False),
    ("other-passwords", ["mqtt.plugins.Passwords"], False),
]


@pytest.mark.parametrize(("names", "bounded"), [row[1:] for row in BOUNDED], ids=[row[0] for row in BOUNDED])
async def test_only_the_password_file_bounds_logins_itself(
    names: list[str], bounded: bool, tmp_path: Path
) -> None:
    (tmp_path / "users.txt").write_text("")
    options = {"proxyproto_rs.mqtt.PasswordFile": {"password_file": str(tmp_path / "users.txt")}}
    config = AmqttConfig.model_validate({"plugins": {name: options.get(name, {}) for name in names}})
    broker = broker_of(config, ["tcp"])
    assert AmqttBackend(broker).bounds_logins is bounded
    await broker.plugins_manager.close()
