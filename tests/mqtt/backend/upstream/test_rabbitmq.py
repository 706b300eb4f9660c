"""Through the front to a cluster of two nodes of RabbitMQ, which read the PROXY header and show the device's own address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import (
    CLIENT,
    DISCONNECT,
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    Broker,
    connack,
    connect,
    connect_of,
    dial,
    log_in,
    publish,
    running,
    subscribe,
)
from mqtt.test_acceptance import device, haproxy
from proxyproto_rs import Header

if TYPE_CHECKING:
    from pathlib import Path

    from interop.certificates import Certificates
    from mqtt.peers import Client

    from .rabbitmq import Cluster

pytestmark = pytest.mark.timeout(300)  # the first test starts the cluster

CHECK = {"interval": "200ms", "fall": 3, "rise": 2}


def behind(*addresses: str) -> dict[str, Any]:
    """Sections of a configuration for nodes of RabbitMQ 3.10, which speaks no MQTT 5."""
    upstream = {
        "servers": list(addresses),
        "proxy_protocol": "v2",
        "versions": ["3.1", "3.1.1"],
        "check": CHECK,
    }
    return {"backend": {"upstream": upstream}, "amqtt": {}}


def node_of(broker: Broker, client_id: str) -> str:
    """The address of the node that has the client."""
    record = broker.service.sessions.record(client_id)
    assert record is not None
    assert record.upstream is not None
    return record.upstream


def numbers_of(broker: Broker, address: str) -> Any:
    """What the gateway has counted of a node."""
    servers = broker.service.front.numbers()["servers"]
    return next(server for server in servers if server["address"] == address)


async def test_a_node_lists_addresses_and_tls_of_devices(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    async with running(**behind(node.address)) as broker:
        ssl = b"\x01\0\0\0\0" + b"\x21\0\x07TLSv1.3" + b"\x23\0\x16TLS_AES_256_GCM_SHA384"
        secure = Header.v2(OTHER, ("198.51.100.1", 8883), tlvs=[(0x20, ssl)]).encode()
        six = Header.v2(("2001:db8::7", 40001), ("2001:db8::1", 1883)).encode()
        async with (
            log_in(broker.address()) as client,
            dial(broker.address(), connect("secure").encode(), header=secure) as other,
            dial(broker.address(), connect("six").encode(), header=six) as third,
        ):
            assert [client.connack, await other.packet(), await third.packet()] == [WELCOME] * 3
            listed = await node.connections()
            assert (listed["dev"].peer, listed["dev"].tls) == (CLIENT, None)
            assert listed["dev"].name == f"{CLIENT[0]}:{CLIENT[1]} -> 198.51.100.1:1883"
            assert (listed["secure"].peer, listed["secure"].tls) == (OTHER, "tlsv1.3")
            assert listed["six"].peer == ("2001:db8::7", 40001)
            assert node_of(broker, "dev") == node.address


async def test_a_wrong_password_and_a_version_that_it_does_not_speak(cluster: Cluster) -> None:
    async with running(**behind(*cluster.addresses)) as broker:
        async with log_in(broker.address(), connect("dev", password=b"wrong")) as client:
            assert client.connack == connack(4)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("bad-credentials", CLIENT[0])
        # It closes a CONNECT of MQTT 5 without a word, so the front answers.
        async with dial(broker.address(), connect_of("MQTT_5")) as client:
            assert await client.packet() == b"\x20\x03\x00\x84\x00"


async def test_through_haproxy_a_message_crosses_and_devices_keep_their_addresses(
    cluster: Cluster, tmp_path: Path, certificates: Certificates
) -> None:
    ends_tls = f"ssl crt {certificates.server}"
    async with running(**behind(*cluster.addresses)) as broker, contextlib.AsyncExitStack() as stack:
        address = broker.address()
        for name in ("plain", "secure"):
            (tmp_path / name).mkdir()
        (plain,) = stack.enter_context(haproxy(tmp_path / "plain", (address, "send-proxy-v2")))
        (secure,) = stack.enter_context(
            # RabbitMQ shows TLS only where it is told the cipher too.
            haproxy(
                tmp_path / "secure",
                (address, "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher"),
                bind=ends_tls,
            )
        )
        tls = certificates.client_context()
        reader = await stack.enter_async_context(device("reader", "127.0.0.7", secure, tls=tls))
        writer = await stack.enter_async_context(device("writer", "127.0.0.8", plain))
        assert {node_of(broker, "reader"), node_of(broker, "writer")} == set(cluster.addresses)
        subscribed = asyncio.Event()
        loop = asyncio.get_running_loop()
        reader.client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)  # type: ignore[assignment]
        reader.client.subscribe("across", 1)
        await asyncio.wait_for(subscribed.wait(), 10)
        writer.client.publish("across", b"hello", 1)
        assert await asyncio.wait_for(reader.messages.get(), 10) == ("across", b"hello")
        listed = await cluster.nodes[1].connections()
        assert (listed["reader"].peer, listed["reader"].tls) == (reader.own_address, "tlsv1.3")
        assert (listed["writer"].peer, listed["writer"].tls) == (writer.own_address, None)
        assert listed["writer"].name == f"{':'.join(map(str, writer.own_address))} -> 127.0.0.1:{plain}"


async def test_a_second_login_on_the_other_node_takes_over(cluster: Cluster, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with (
        running(**behind(*cluster.addresses), audit={"file": str(audit)}) as broker,
        log_in(broker.address()) as old,
    ):
        first = node_of(broker, "dev")
        async with log_in(broker.address(), source=OTHER) as new:
            assert (old.connack, new.connack) == (WELCOME, WELCOME)
            second = node_of(broker, "dev")
            assert {first, second} == set(cluster.addresses)
            assert await old.end() == b""
            await broker.until(lambda: broker.service.metrics.disconnects)
            assert broker.service.metrics.disconnects == {("tcp", "taken-over"): 1}
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert (record.connected, record.connection.client) == (True, OTHER)
            assert await new.ask(PINGREQ) == PINGRESP
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    (line,) = (line for line in lines if line["reason"] == "taken-over")
    assert (line["event"], line["clientId"], line["upstream"]) == ("client.disconnected", "dev", first)
    assert line["client"] == {"ip": CLIENT[0], "port": CLIENT[1]}


async def test_a_kept_session_is_resumed_on_the_other_node(cluster: Cluster) -> None:
    how = connect("kept", clean_session=False)
    async with running(**behind(*cluster.addresses)) as broker, contextlib.AsyncExitStack() as stack:
        async with log_in(broker.address(), how) as client:
            await client.ask(subscribe("kept", qos=1))
            first = node_of(broker, "kept")
            client.send(DISCONNECT)
            await client.end()
        await broker.until(lambda: not broker.service.sessions.connected)
        (other,) = set(cluster.addresses) - {first}
        # The next login goes where there are fewer: that shall be the other node.
        writer, away = [
            await stack.enter_async_context(log_in(broker.address(), connect(client_id), source=OTHER))
            for client_id in ("one", "two")
        ]
        if node_of(broker, "one") == other:
            writer, away = away, writer
        away.send(DISCONNECT)
        await away.end()
        await broker.until(lambda: numbers_of(broker, other)["connections"] == 0)
        assert (await writer.ask(publish("kept", b"while away", qos=1)))[0] == 0x40
        async with log_in(broker.address(), how, source=OTHER) as client:
            assert client.connack == WELCOME_BACK
            assert node_of(broker, "kept") == other
            assert (await client.message()).payload == b"while away"


async def test_a_killed_node_loses_its_clients_and_no_login_and_gets_its_share_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    staying, killed = cluster.nodes
    async with running(**behind(*cluster.addresses)) as broker, contextlib.AsyncExitStack() as stack:
        clients: dict[str, Client] = {}

        async def enter(*client_ids: str) -> list[str]:
            """Log in, and give the nodes of those."""
            for number, client_id in enumerate(client_ids):
                source = ("192.0.2.10", 1000 + len(clients) + number)
                client = await stack.enter_async_context(
                    log_in(broker.address(), connect(client_id), source=source)
                )
                assert client.connack == WELCOME
                clients[client_id] = client
            return [node_of(broker, client_id) for client_id in client_ids]

        nodes = await enter(*(f"before-{number}" for number in range(6)))
        assert sorted(nodes) == sorted(cluster.addresses * 3)
        lost = [
            client for client, node in zip(clients.values(), nodes, strict=True) if node == killed.address
        ]
        await asyncio.to_thread(killed.kill)
        # Checks have not found it yet, or have: a login goes to the other.
        assert await enter("at-once-1", "at-once-2") == [staying.address] * 2
        assert [await client.end() for client in lost] == [b""] * 3
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "upstream-lost"] == 3)
        await broker.until(lambda: f"upstream-down upstream={killed.address}" in caplog.text)
        failures = numbers_of(broker, killed.address)["failures"]
        assert await enter("down-1", "down-2") == [staying.address] * 2
        assert numbers_of(broker, killed.address)["failures"] == failures, "nobody is sent there any more"
        stayed = [client for client in clients.values() if client not in lost]
        assert [await client.ask(PINGREQ) for client in stayed] == [PINGRESP] * 7

        killed.start()
        await asyncio.to_thread(killed.wait_started)
        await broker.until(lambda: f"upstream-up upstream={killed.address}" in caplog.text)
        assert await enter(*(f"back-{number}" for number in range(7))) == [killed.address] * 7
        assert sorted(await enter("even-1", "even-2")) == sorted(cluster.addresses)
        assert broker.service.metrics.disconnects == {("tcp", "upstream-lost"): 3}
        assert await broker.rows(0) == []
