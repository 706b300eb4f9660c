"""Clients through the front to a real Mosquitto: logins, messages, refusals, ends, and what is written down of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from argon2 import PasswordHasher

from mqtt.peers import (
    CLIENT,
    DISCONNECT,
    OTHER,
    WAIT,
    WELCOME,
    WELCOME_BACK,
    Broker,
    connack,
    connect,
    connect_of,
    dial,
    log_in,
    packet,
    publish,
    running,
    subscribe,
    text,
    will,
)
from mqtt.test_acceptance import device, haproxy
from proxyproto_rs import Header
from proxyproto_rs.mqtt import BlockedClient, SessionQuery
from proxyproto_rs.mqtt.collector import registry
from proxyproto_rs.mqtt.config.broker import BrokerConfig, Loaded

from .mosquitto import mosquitto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .mosquitto import Mosquitto


def behind(*servers: str, **options: Any) -> dict[str, Any]:
    """Sections of a configuration for servers that read no header."""
    return {
        "backend": {"upstream": {"servers": list(servers), "proxy_protocol": "off", **options}},
        "amqtt": {},
    }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "mosquitto") as server:
        yield server


async def only_session(broker: Broker) -> Any:
    (record,) = (await broker.service.sessions.find(SessionQuery())).data
    return record


@pytest.mark.parametrize("version", ["MQTT_3_1", "MQTT_3_1_1", "MQTT_5"])
@pytest.mark.parametrize("header", [1, 2])
async def test_a_login_of_each_version_has_its_row(version: str, header: int, server: Mosquitto) -> None:
    make = Header.v1 if header == 1 else Header.v2
    async with running(**behind(server.address)) as broker:
        first = make(CLIENT, ("198.51.100.1", 1883)).encode()
        async with dial(broker.address(), connect_of(version), header=first) as client:
            answer = await client.packet()
            assert answer[:4] == WELCOME if version != "MQTT_5" else answer[3] == 0
            row = (await only_session(broker)).to_json()
            assert (row["clientIpAdr"], row["clientPort"]) == CLIENT
            assert (row["mqttVersion"], row["upstream"], row["username"]) == (version, server.address, "user")
            assert (row["proxyIpAdr"], row["proxyVersion"]) == ("127.0.0.1", header)
            assert row["keepAliveSeconds"] == 60
            assert 0 < row["upstreamConnectMs"] < WAIT * 1000
            assert row["bytesIn"] == len(connect_of(version))
            client.send(DISCONNECT)
            assert await client.end() == b""
        await broker.until(lambda: len(broker.service.sessions) == 0)
        assert broker.service.metrics.disconnects["tcp", "disconnect"] == 1


@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2"])
async def test_through_haproxy_rows_show_the_devices_own_address(
    options: str, server: Mosquitto, tmp_path: Path
) -> None:
    async with running(**behind(server.address)) as broker:
        with haproxy(tmp_path, (broker.address(), options)) as (port,):
            async with device("meter", "127.0.0.7", port, protocol=paho.MQTTv5) as meter:
                record = await only_session(broker)
                assert record.connection.client == meter.own_address
                assert record.connection.client[0] == "127.0.0.7"
                assert record.mqtt_version == "MQTT_5"


@pytest.mark.parametrize("protocol", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
async def test_messages_of_each_qos_arrive(protocol: int, server: Mosquitto) -> None:
    open_port = {"tcp": {"proxy_protocol": "off"}}
    large = bytes(range(256)) * 200
    async with running(**behind(server.address), listeners=open_port) as broker:
        port = broker.address()[1]
        async with device("in", "127.0.0.1", port, protocol=protocol) as reader:
            subscribed = asyncio.Event()
            loop = asyncio.get_running_loop()

            def on_subscribe(*_: Any) -> None:
                loop.call_soon_threadsafe(subscribed.set)

            reader.client.on_subscribe = on_subscribe
            reader.client.subscribe("a/#", qos=2)
            await asyncio.wait_for(subscribed.wait(), WAIT)
            async with device("out", "127.0.0.1", port, protocol=protocol) as writer:
                for qos in (0, 1, 2):
                    info = writer.client.publish(f"a/{qos}", large, qos=qos)
                    await asyncio.to_thread(info.wait_for_publish, WAIT)
                got = [await asyncio.wait_for(reader.messages.get(), WAIT) for _ in range(3)]
                assert got == [(f"a/{qos}", large) for qos in (0, 1, 2)]
                writer.client.publish("kept", b"retained", qos=1, retain=True).wait_for_publish(WAIT)
            reader.client.subscribe("kept", qos=1)
            assert await asyncio.wait_for(reader.messages.get(), WAIT) == ("kept", b"retained")
        packets = broker.service.front.numbers()["listeners"]["tcp"]
        assert packets["packets_in"][3] == 4


async def test_a_will_is_published_when_its_client_is_lost(server: Mosquitto) -> None:
    async with running(**behind(server.address)) as broker, log_in(broker.address()) as reader:
        await reader.ask(subscribe("wills"))
        dying = connect("dying", will=will())
        async with log_in(broker.address(), dying, source=OTHER) as client:
            assert client.connack == WELCOME
        message = await reader.message()
        assert (message.topic, message.payload) == ("wills", b"gone")
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "connection-lost"] == 1)


async def test_a_persistent_session_is_resumed_from_another_address(server: Mosquitto) -> None:
    how = connect("dev", clean_session=False)
    async with running(**behind(server.address)) as broker:
        async with log_in(broker.address(), how) as client:
            assert client.connack == WELCOME
            await client.ask(subscribe("a", qos=1))
            client.send(DISCONNECT)
            assert await client.end() == b""
        await broker.until(lambda: broker.service.sessions.connected == 0)
        record = await only_session(broker)
        assert (record.to_json()["connectionState"], record.disconnect_reason) == (
            "DISCONNECTED",
            "disconnect",
        )
        with pytest.raises(ValueError, match="kept by the server behind"):
            await broker.service.sessions.remove("dev")
        async with log_in(broker.address(), connect("other"), source=OTHER) as writer:
            assert (await writer.ask(publish("a", b"while away", qos=1)))[0] == 0x40
        async with log_in(broker.address(), how, source=OTHER) as client:
            assert client.connack == WELCOME_BACK
            assert (await client.message()).payload == b"while away"
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.connection.client == OTHER


@pytest.mark.parametrize(("version", "code"), [("MQTT_3_1", 5), ("MQTT_3_1_1", 5), ("MQTT_5", 0x87)])
async def test_a_wrong_password_is_the_servers_answer_and_counts(
    version: str, code: int, server: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    auto = {"enabled": True, "max_failures": 2, "window": 60, "block_for": 60}
    async with running(**behind(server.address), auto_block=auto) as broker:
        for _ in range(2):
            async with dial(broker.address(), connect_of(version, password=b"wrong")) as client:
                assert (await client.packet())[3] == code
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.username, row.password_provided) == (
            "bad-credentials",
            CLIENT[0],
            "user",
            True,
        )
        assert f"code {code:#04x}" in row.reason
        assert f"upstream={server.address}" in caplog.text
        await broker.until(lambda: any(broker.service.blocked.count_by_type().values()))
        async with dial(broker.address(), connect_of(version)) as client:
            assert await client.end() == b""


@pytest.mark.parametrize("version", ["MQTT_3_1_1", "MQTT_5"])
async def test_a_block_ends_the_session(version: str, server: Mosquitto) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            await client.packet()
            await broker.until(lambda: broker.service.sessions.connected == 1)
            await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="dev"))
            assert await client.end() == (b"\xe0\x01\x98" if version == "MQTT_5" else b"")
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "blocked"] == 1)
        async with dial(broker.address(), connect_of(version)) as client:
            assert (await client.packet())[3] == (0x8A if version == "MQTT_5" else 5)
        assert broker.service.front.numbers()["servers"][0]["answered"] == 1


async def test_an_access_rule_forbids_a_login_before_it_goes_upstream(server: Mosquitto) -> None:
    rules = [{"clients": ["dev"], "networks": ["192.0.2.0/24"], "action": "deny"}]
    async with running(**behind(server.address), access=rules) as broker:
        async with log_in(broker.address()) as client:
            assert client.connack == connack(5)
        async with log_in(broker.address(), source=OTHER) as client:
            assert client.connack == WELCOME
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("access-denied", "by access[0]")
        assert broker.service.front.numbers()["servers"][0]["answered"] == 1


@pytest.mark.parametrize(("version", "code"), [("MQTT_3_1_1", 3), ("MQTT_5", 0x88)])
async def test_a_server_that_is_down_is_unavailable_until_it_is_back(
    version: str, code: int, server: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    checks = {"interval": "20ms", "fall": 1, "rise": 1}
    caplog.set_level(logging.INFO)
    async with running(**behind(server.address, check=checks)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            await client.packet()
            await server.stop()
            assert await client.end() == b"" or version == "MQTT_5"
        await broker.until(lambda: "upstream-down" in caplog.text)
        async with dial(broker.address(), connect_of(version)) as client:
            assert (await client.packet())[3] == code
        (row,) = await broker.rows()
        assert row.reason_code == "upstream-unavailable"
        assert not any(broker.service.blocked.count_by_type().values())
        await broker.until(lambda: broker.service.metrics.disconnects)
        assert broker.service.metrics.disconnects == {("tcp", "upstream-lost"): 1}
        await server.start()
        await broker.until(lambda: "upstream-up" in caplog.text)
        async with dial(broker.address(), connect_of(version)) as client:
            assert (await client.packet())[3] == 0


async def test_a_second_login_of_an_id_takes_the_session_over(server: Mosquitto) -> None:
    async with (
        running(**behind(server.address)) as broker,
        log_in(broker.address()) as old,
        log_in(broker.address(), source=OTHER) as new,
    ):
        assert new.connack == WELCOME
        assert await old.end() == b""
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "taken-over"] == 1)
        record = await only_session(broker)
        assert record.connected
        assert record.connection.client == OTHER
        assert broker.service.sessions.connected_from(CLIENT[0]) == 0


async def test_a_client_id_belongs_to_its_user_while_its_session_is_kept(
    server: Mosquitto, tmp_path: Path
) -> None:
    async with (
        running(**behind(server.address), auth=["anonymous", "upstream"]) as broker,
        log_in(broker.address()) as owner,
    ):
        assert owner.connack == WELCOME
        thief = connect("dev", username=None, password=None)
        async with log_in(broker.address(), thief, source=OTHER) as client:
            assert client.connack == connack(5)
        assert (await owner.ask(b"\xc0\0")) == b"\xd0\0"


async def test_a_bridge_logs_in_with_the_will_that_mosquitto_gives_it(server: Mosquitto) -> None:
    bridge = connect("bridge", will=will("$SYS/broker/connection/bridge/state", b"0", retain=True))
    probe = bytearray(bridge.encode())
    probe[8] = 0x84
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), bytes(probe)) as client:
            assert await client.packet() == connack(1)
        async with log_in(broker.address(), bridge) as client:
            assert client.connack == WELCOME
        assert await broker.rows(0) == []
        assert broker.service.metrics.connects["tcp", "protocol-version"] == 1


async def test_an_empty_client_id_gets_one(server: Mosquitto) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_of("MQTT_3_1_1", "")) as client:
            assert await client.packet() == WELCOME
            assert (await only_session(broker)).client_id.startswith("auto-")
        await broker.until(lambda: len(broker.service.sessions) == 0)
        async with dial(broker.address(), connect_of("MQTT_5", "")) as client:
            answer = await client.packet()
            assert (await only_session(broker)).client_id.encode() in answer


async def test_limits_hold_for_those_that_come_at_once(server: Mosquitto) -> None:
    async with (
        running(**behind(server.address), limits={"max_sessions": 3}) as broker,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(dial(broker.address(), connect(f"dev-{n}").encode()))
            for n in range(8)
        ]
        answers = [await client.packet() for client in clients]
        assert sorted(answers) == [WELCOME] * 3 + [connack(3)] * 5


async def test_an_operator_ends_a_session_and_is_told_when_it_is_over(server: Mosquitto) -> None:
    async with running(**behind(server.address)) as broker, log_in(broker.address()) as client:
        assert await broker.service.sessions.disconnect("dev")
        assert broker.service.sessions.connected == 0
        assert await client.end() == b""


async def test_an_idle_client_of_mqtt_5_is_told_why_it_is_ended(server: Mosquitto) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_of("MQTT_5", keep_alive=1)) as client:
            await client.packet()
            assert await client.end() == b"\xe0\x01\x8d"
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "keep-alive"] == 1)


async def test_a_stop_tells_clients_of_mqtt_5(server: Mosquitto) -> None:
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(running(**behind(server.address)))
        client = await stack.enter_async_context(dial(broker.address(), connect_of("MQTT_5")))
        await client.packet()
        await broker.service.stop()
        assert await client.end() == b"\xe0\x01\x8b"
        assert broker.service.metrics.disconnects["tcp", "server-shutdown"] == 1


async def test_servers_change_at_a_reload_and_connections_stay(server: Mosquitto, tmp_path: Path) -> None:
    async with (
        mosquitto(tmp_path / "second") as second,
        running(**behind(server.address)) as broker,
        log_in(broker.address()) as client,
    ):
        tree = broker.service.config.model_dump()
        tree["backend"]["upstream"]["servers"] = [second.address]
        for listener in tree["listeners"].values():
            del listener["name"]
        changed = await broker.service.reload(Loaded(BrokerConfig.model_validate(tree), {}, ()))
        assert changed == ("backend",)
        async with log_in(broker.address(), connect("new"), source=OTHER) as new:
            assert new.connack == WELCOME
            record = broker.service.sessions.record("new")
            assert record is not None
            assert record.upstream == second.address
        assert await client.ask(b"\xc0\0") == b"\xd0\0"


async def test_audit_and_metrics_name_the_server(server: Mosquitto, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with (
        running(**behind(server.address), audit={"file": str(audit)}) as broker,
        dial(broker.address(), connect_of("MQTT_5")) as client,
    ):
        await client.packet()
        await broker.until(lambda: broker.service.sessions.connected == 1)
        values = registry(broker.service.sources)
        name = {"server": server.address}
        assert values.get_sample_value("proxyproto_mqtt_upstream_up", name) == 1
        assert values.get_sample_value("proxyproto_mqtt_upstream_connections", name) == 1
        assert values.get_sample_value("proxyproto_mqtt_upstream_connect_seconds_count", name) == 1
        assert values.get_sample_value("proxyproto_mqtt_upstream_failures_total", name) == 0
        packets = {"listener": "tcp", "direction": "in", "type": "CONNECT"}
        assert values.get_sample_value("proxyproto_mqtt_packets_total", packets) == 1
        size = {"listener": "tcp", "direction": "in"}
        assert values.get_sample_value("proxyproto_mqtt_bytes_total", size) == len(connect_of("MQTT_5"))
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    (line,) = (line for line in lines if line["event"] == "client.connected")
    assert (line["mqttVersion"], line["upstream"]) == ("MQTT_5", server.address)
    assert line["upstreamConnectMs"] > 0
    assert not [line for line in lines if line["event"] == "connection.refused"]


async def test_nothing_is_logged_as_an_error(server: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    async with running(**behind(server.address)) as broker, log_in(broker.address()) as client:
        assert client.connack == WELCOME
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_own_passwords_are_asked_before_the_server(server: Mosquitto, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"own:{PasswordHasher(1, 8, 1).hash('secret')}\n")
    async with running(**behind(server.address), auth=[{"file": str(users)}, "upstream"]) as broker:
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME, "the file does not know the user, and the server does"
        async with log_in(broker.address(), connect(username="own", password=b"wrong")) as client:
            assert client.connack == connack(5)
        numbers = broker.service.front.numbers()
        assert numbers["servers"][0]["answered"] == 1
        # It is good here, and goes upstream with its password: this server does not know the user.
        async with log_in(broker.address(), connect(username="own", password=b"secret")) as client:
            assert client.connack == connack(5)
        await broker.until(lambda: broker.service.metrics.connects["tcp", "bad-credentials"] == 2)


async def test_an_authentication_method_that_mosquitto_does_not_know(server: Mosquitto) -> None:
    properties = b"\x15" + text("XYZ")
    first = text("MQTT") + bytes((5, 2, 0, 60, len(properties))) + properties + text("dev")
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), packet(0x10, first)) as client:
            assert (await client.packet())[3] == 0x8C
        (row,) = await broker.rows()
        assert row.reason_code == "bad-credentials"
        assert row.reason.endswith(" (code 0x8c)")


async def test_the_smaller_limit_of_packets_is_told_and_mosquitto_may_enforce_its_own(tmp_path: Path) -> None:
    lines = ("max_packet_size 1000",)
    async with (
        mosquitto(tmp_path / "small", *lines) as server,
        running(**behind(server.address), mqtt={"max_packet_size": 100_000}) as broker,
        dial(broker.address(), connect_of("MQTT_5")) as client,
    ):
        welcome = await client.packet()
        assert b"\x27" + (1000).to_bytes(4, "big") in welcome
        client.send(packet(0x30, text("t") + b"\0" + bytes(2000)))
        assert await client.end() == b"\xe0\x01\x95"
        await broker.until(lambda: len(broker.service.metrics.disconnects) == 1)
        assert broker.service.metrics.disconnects == {("tcp", "upstream-closed"): 1}
