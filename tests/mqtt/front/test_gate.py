"""The way of one connection through the gate, step by step, with amqtt behind it."""

from __future__ import annotations

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt import SessionQuery
from proxyproto_rs.mqtt.model.login import Will

from ..peers import (
    CLIENT,
    DISCONNECT,
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    Client,
    connack,
    connect,
    dial,
    log_in,
    publish,
    running,
    subscribe,
    will,
)


async def test_the_real_address_is_in_the_session_and_in_amqtts() -> None:
    async with running() as broker, log_in(broker.address()) as client:
        assert client.connack == WELCOME
        (record,) = (await broker.service.sessions.find()).data
        assert record.connection.client == CLIENT
        assert record.connection.proxy is not None
        assert record.connection.proxy[0] == "127.0.0.1"
        assert record.connection.proxy_version == 2
        session, _ = broker.service.broker.sessions["dev"]
        assert (session.remote_address, session.remote_port) == CLIENT


async def test_plugins_are_asked_once_and_see_the_connection() -> None:
    async with running() as broker, log_in(broker.address()):
        (probe,) = broker.plugin("Passwords").asked
        assert (probe.remote_address, probe.remote_port) == CLIENT
        connection = probe.attributes["proxyproto_rs.connection"]
        assert connection.header.version == 2
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert connection.session_id == record.session_id
        session, _ = broker.service.broker.sessions["dev"]
        assert session.attributes["proxyproto_rs.connection"] is connection


async def test_a_resumed_session_has_the_new_address() -> None:
    persistent = connect(clean_session=False)
    async with running() as broker:
        async with log_in(broker.address(), persistent) as client:
            client.send(DISCONNECT)
            assert await client.end() == b""
        async with log_in(broker.address(), persistent, source=OTHER) as client:
            assert client.connack == WELCOME_BACK
            session, _ = broker.service.broker.sessions["dev"]
            assert (session.remote_address, session.remote_port) == OTHER
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.connection.client == OTHER


async def test_messages_go_both_ways() -> None:
    async with (
        running() as broker,
        log_in(broker.address(), connect("one")) as one,
        log_in(broker.address(), connect("two"), source=OTHER) as two,
    ):
        assert await one.ask(subscribe("a/b", qos=1)) == b"\x90\x03\x00\x01\x01"
        body = bytes(50_000)
        two.send(publish("a/b", body, 1))
        message = await one.message()
        assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", body, 1, False)
        assert await two.packet() == b"\x40\x02\x00\x01"
        assert await one.ask(PINGREQ) == PINGRESP


async def test_many_packets_in_one_segment_are_all_served() -> None:
    async with running() as broker:
        packets = connect().encode() + subscribe("x") + publish("x", b"1") + PINGREQ * 300
        async with dial(broker.address(), packets) as client:
            answers = [await client.packet() for _ in range(303)]
            assert answers.count(PINGRESP) == 300


REFUSALS = [
    ("bad-credentials", connect(password=b"wrong"), connack(5)),
    ("bad-credentials", connect(username=None, password=None), connack(5)),
    ("bad-credentials", connect(password=b"\xff\xfe"), connack(5)),
    ("auth-error", connect(username="boom"), connack(3)),
    ("access-denied", connect(will=will("secret/x")), connack(5)),
    ("identifier-rejected", connect("", clean_session=False), connack(2)),
]


@pytest.mark.parametrize(
    ("reason", "how", "answer"), REFUSALS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_who_is_refused_at_connect_is_told_and_recorded(
    reason: str, how: Client, answer: bytes
) -> None:
    async with running() as broker:
        async with log_in(broker.address(), how) as client:  # type: ignore[arg-type]
            assert client.connack == answer
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.port, row.attempts) == (reason, *CLIENT, 1)
        assert not broker.service.broker.sessions


async def test_the_will_of_a_bridge_is_denied_with_the_remedy_and_bans_nobody() -> None:
    bridge = connect("bridge", will=Will("$SYS/broker/connection/bridge/state", b"0", 1, True))
    blocks = {"enabled": True, "max_failures": 1}
    async with running(auto_block=blocks) as broker:
        for _ in range(3):
            async with log_in(broker.address(), bridge) as client:
                assert client.connack == connack(5)
        (row,) = await broker.rows()
        assert (row.reason_code, row.attempts) == ("access-denied", 3)
        assert "starts with $" in row.reason
        assert "notifications false" in row.reason
        assert not any(broker.service.blocked.count_by_type().values())
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME


async def test_a_plugin_that_never_answers_is_an_auth_error() -> None:
    async with running(mqtt={"auth_timeout": "50ms"}) as broker:
        async with log_in(broker.address(), connect(username="slow")) as client:
            assert client.connack == connack(3)
        (row,) = await broker.rows()
        assert row.reason_code == "auth-error"


FIRST_BYTES = [
    ("a second PROXY header", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    ("a second PROXY header", Header.v2(CLIENT, OTHER).encode()),
    ("a TLS ClientHello", b"\x16\x03\x01\x02\x00"),
    ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
    ("MQTT packet type 3", publish("a")),
    ("unknown bytes", b"EHLO there\r\n"),
]


@pytest.mark.parametrize(("name", "sent"), FIRST_BYTES, ids=[name for name, _ in FIRST_BYTES])
async def test_what_is_not_a_connect_is_named_and_not_answered(name: str, sent: bytes) -> None:
    async with running() as broker:
        async with dial(broker.address(), sent) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert row.reason_code == "malformed-connect"
        assert row.reason.startswith(f"not a CONNECT but {name}")


@pytest.mark.parametrize("sent", [b"", connect().encode()[:-1]], ids=["nothing", "half"])
async def test_no_whole_connect_in_time_is_no_connect(sent: bytes) -> None:
    async with running(mqtt={"connect_timeout": "50ms"}) as broker:
        async with dial(broker.address(), sent) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert row.reason_code == "no-connect"


async def test_a_connect_that_is_too_large_is_not_read() -> None:
    async with running() as broker:
        async with dial(broker.address(), b"\x10\xff\xff\x7f") as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert row.reason_code == "malformed-connect"
        assert "at most 16384" in row.reason


async def test_keep_alive_is_enforced_and_the_will_is_sent() -> None:
    async with (
        running(mqtt={"keepalive_factor": 1}) as broker,
        log_in(broker.address(), connect("heir")) as heir,
    ):
        await heir.ask(subscribe("wills"))
        async with log_in(broker.address(), connect(keep_alive=1, will=will()), source=OTHER) as client:
            assert await client.end() == b""
            assert (await heir.message()).payload == b"gone"


async def test_no_will_after_disconnect_even_in_the_same_segment() -> None:
    async with running() as broker, log_in(broker.address(), connect("heir")) as heir:
        await heir.ask(subscribe("#"))
        packets = connect(will=will()).encode() + publish("a", b"1") + publish("a", b"2", 1) + DISCONNECT
        async with dial(broker.address(), packets, source=OTHER) as client:
            await client.end()
        assert [(await heir.message()).payload for _ in range(2)] == [b"1", b"2"]
        async with log_in(broker.address(), connect("last"), source=OTHER) as client:
            client.send(publish("a", b"3"))
            assert (await heir.message()).payload == b"3"


ENDS = [
    ("malformed-packet", publish("a", qos=3)),
    ("malformed-packet", b"\x80\x02\x00\x01"),
    ("malformed-packet", b"\xc0\x01\x00"),
    ("malformed-packet", b"\x30\xff\xff\xff\xff"),
    ("packet-too-large", b"\x30\xff\xff\x7f"),
    ("bad-topic", publish("a/#")),
    ("bad-topic", publish("$SYS/x")),
    ("second-connect", connect().encode()),
    ("disconnect", DISCONNECT),
]


@pytest.mark.parametrize(
    ("reason", "sent"), ENDS, ids=[f"{reason}-{sent[:6].hex()}" for reason, sent in ENDS]
)
async def test_what_ends_a_session(reason: str, sent: bytes) -> None:
    async with running() as broker, log_in(broker.address(), connect(clean_session=False)) as client:
        client.send(sent)
        assert await client.end() == b""
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert (record.connected, record.disconnect_reason) == (False, reason)
        session, _ = broker.service.broker.sessions["dev"]
        assert session.transitions.state == "disconnected"


async def test_a_packet_that_never_ends_ends_the_session() -> None:
    async with (
        running(mqtt={"packet_timeout": "50ms"}) as broker,
        log_in(broker.address(), connect(clean_session=False)) as client,
    ):
        client.send(publish("a", b"never")[:-1])
        assert await client.end() == b""
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.disconnect_reason == "packet-timeout"


async def test_a_lost_connection_is_one_and_a_clean_session_goes_with_it() -> None:
    async with running() as broker:
        async with log_in(broker.address()) as client:
            await client.ask(subscribe("a"))
        await broker.until(lambda: not broker.service.sessions.connected)
        assert not broker.service.broker.sessions
        assert not broker.service.broker.subscriptions
        assert broker.service.metrics.disconnects["tcp", "connection-lost"] == 1
        assert (await broker.service.sessions.find()).total_elements == 0


async def test_too_many_before_login_are_busy() -> None:
    async with running(limits={"max_unauthenticated": 1}) as broker, dial(broker.address()) as first:
        async with dial(broker.address()) as second:
            assert await second.end() == b""
        first.send(connect().encode())
        assert await first.packet() == WELCOME
        async with log_in(broker.address(), connect("two")) as third:
            assert third.connack == WELCOME
        assert broker.service.metrics.connects["tcp", "busy"] == 1


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_client"])
async def test_too_many_sessions(limit: str) -> None:
    async with running(limits={limit: 1}) as broker, log_in(broker.address(), connect("one")):
        async with log_in(broker.address(), connect("two")) as second:
            assert second.connack == connack(3)
        async with log_in(broker.address(), connect("one")) as again:  # takes its own place
            assert again.connack == WELCOME
        assert broker.service.metrics.connects["tcp", "too-many-sessions"] == 1


async def test_publishing_is_slowed_down_not_ended() -> None:
    async with running(limits={"publish": "50:1"}) as broker, log_in(broker.address()) as client:
        await client.ask(subscribe("a"))
        client.send(*[publish("a", b"x") for _ in range(52)])
        for _ in range(52):
            await client.message()
        assert broker.service.gate.publish_delays >= 1  # fifty at once, two more as their time comes


async def test_the_operator_ends_a_connection_and_removes_a_session() -> None:
    async with running() as broker, log_in(broker.address(), connect(clean_session=False)) as client:
        sessions = broker.service.sessions
        await client.ask(subscribe("a", qos=1))
        with pytest.raises(ValueError, match="is connected"):
            await sessions.remove("dev")
        assert not await sessions.disconnect("dev", "another session id")
        assert await sessions.disconnect("dev")
        assert await client.end() == b""
        view = await sessions.get("dev")
        assert view is not None
        assert view.to_json()["subscriptions"] == [{"topicFilter": "a", "qos": 1}]
        assert view.record.disconnect_reason == "administrative"
        assert await sessions.remove("dev")
        assert not await sessions.remove("dev")
        assert not broker.service.broker.subscriptions
        assert (await sessions.find(SessionQuery())).total_elements == 0
