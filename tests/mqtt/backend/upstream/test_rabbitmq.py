"""Through the front to a real RabbitMQ, which reads the PROXY header and shows the device's own address."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import (
    CLIENT,
    OTHER,
    WELCOME,
    connack,
    connect,
    connect_of,
    dial,
    log_in,
    publish,
    running,
    subscribe,
)
from proxyproto_rs import Header

from .rabbitmq import RabbitMQ

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(300)
async def test_rabbitmq_lists_the_devices_own_addresses(tmp_path: Path) -> None:
    node = RabbitMQ(tmp_path / "rabbitmq")
    upstream = {"servers": [node.address], "proxy_protocol": "v2", "versions": ["3.1", "3.1.1"]}
    async with node.running(), running(backend={"upstream": upstream}, amqtt={}) as broker:
        ssl = b"\x01\0\0\0\0" + b"\x21\0\x07TLSv1.3" + b"\x23\0\x16TLS_AES_256_GCM_SHA384"
        secure = Header.v2(OTHER, ("198.51.100.1", 8883), tlvs=[(0x20, ssl)]).encode()
        six = Header.v2(("2001:db8::7", 40001), ("2001:db8::1", 1883)).encode()
        async with (
            log_in(broker.address()) as client,
            dial(broker.address(), connect("secure").encode(), header=secure) as other,
            dial(broker.address(), connect("six").encode(), header=six) as third,
        ):
            assert [client.connack, await other.packet(), await third.packet()] == [WELCOME] * 3
            rows = {row["client_id"]: row for row in await node.connections()}
            assert (address_of(rows["dev"]), rows["dev"]["peer_port"]) == CLIENT
            assert rows["dev"]["ssl"] is False
            assert (address_of(rows["secure"]), rows["secure"]["ssl_protocol"]) == (OTHER[0], "tlsv1.3")
            assert address_of(rows["six"]) == "2001:db8::7"
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.upstream == node.address
            await client.ask(subscribe("a", qos=1))
            assert (await other.ask(publish("a", b"hello", qos=1)))[0] == 0x40
            assert (await client.message()).payload == b"hello"
        async with log_in(broker.address(), connect("dev", password=b"wrong")) as client:
            assert client.connack == connack(4)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("bad-credentials", CLIENT[0])
        # It closes a CONNECT of MQTT 5 without a word, so the front answers.
        async with dial(broker.address(), connect_of("MQTT_5")) as client:
            assert await client.packet() == b"\x20\x03\x00\x84\x00"


def address_of(row: dict[str, Any]) -> str:
    """Erlang writes an address as its numbers."""
    numbers = row["peer_host"]
    if len(numbers) == 4:
        return str(ipaddress.IPv4Address(bytes(numbers)))
    return str(ipaddress.IPv6Address(b"".join(number.to_bytes(2, "big") for number in numbers)))
