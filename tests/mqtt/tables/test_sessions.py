"""The list of sessions: TBMQ's filters and ours, order, pages, and the row as JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt import SessionQuery
from proxyproto_rs.mqtt.model.connection import Connection, TlsInfo, address_text
from proxyproto_rs.mqtt.model.session_record import SessionRecord, Traffic
from proxyproto_rs.mqtt.tables.session_query import matching

from ..peers import CLIENT, DISCONNECT, OTHER, connect, log_in, running, subscribe

if TYPE_CHECKING:
    from proxyproto_rs.mqtt.model.connection import Address


def record(client_id: str, client: Address = CLIENT, **changes: Any) -> SessionRecord:
    listener = changes.pop("listener", "tcp")
    header = changes.pop("header", Header.v2(("192.0.2.1", 1), ("192.0.2.2", 2)))
    connection = Connection(
        session_id=f"session-{client_id}",
        listener=listener,
        client=client,
        proxy=("10.0.0.9", 4711),
        destination=("198.51.100.1", 1883),
        header=header,
        address_source="header",
        tls=changes.pop("tls", None),
    )
    values: dict[str, Any] = {
        "username": "user",
        "node_id": "node-1",
        "clean_start": True,
        "keep_alive_seconds": 60,
        "session_expiry_interval": 0,
        "connected_at": 1000,
    }
    return SessionRecord(
        client_id=client_id, connection=connection, traffic=Traffic(bytes_in=7), **{**values, **changes}
    )


RECORDS = [
    record("dev-1", ("192.0.2.10", 1), connected_at=1000, subscriptions_count=1),
    record("dev-2", ("192.0.2.11", 2), connected_at=2000, subscriptions_count=2, username="admin"),
    record("Sensor", ("2001:db8::7", 3), connected_at=3000, listener="ssl", clean_start=False),
    record(
        "old",
        ("10.1.2.3", 4),
        connected_at=4000,
        connected=False,
        disconnected_at=5000,
        node_id="node-2",
        header=None,
    ),
]

QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["old", "Sensor", "dev-2", "dev-1"]),
    ({"sort_order": "ASC"}, ["dev-1", "dev-2", "Sensor", "old"]),
    ({"text_search": "DEV"}, ["dev-2", "dev-1"]),
    ({"start_time": 2000, "end_time": 3000}, ["Sensor", "dev-2"]),
    ({"connected_status_list": ("DISCONNECTED",)}, ["old"]),
    ({"connected_status_list": ("CONNECTED", "DISCONNECTED")}, ["old", "Sensor", "dev-2", "dev-1"]),
    ({"client_type_list": ("DEVICE",)}, ["old", "Sensor", "dev-2", "dev-1"]),
    ({"client_type_list": ("APPLICATION",)}, []),
    ({"clean_start_list": (False,)}, ["Sensor"]),
    ({"node_id_list": ("node-2",)}, ["old"]),
    ({"subscriptions": 1}, ["dev-1"]),
    ({"subscriptions": 1, "subscription_operation": "GREATER_OR_EQUAL"}, ["dev-2", "dev-1"]),
    ({"subscriptions": 1, "subscription_operation": "NOT_EQUAL"}, ["old", "Sensor", "dev-2"]),
    ({"subscriptions": 2, "subscription_operation": "LESS"}, ["old", "Sensor", "dev-1"]),
    ({"subscriptions": 1, "subscription_operation": "LESS_OR_EQUAL"}, ["old", "Sensor", "dev-1"]),
    ({"subscriptions": 1, "subscription_operation": "GREATER"}, ["dev-2"]),
    ({"client_ip_address": "192.0.2"}, ["dev-2", "dev-1"]),
    ({"client_ip_address": "192.0.2.10/31"}, ["dev-2", "dev-1"]),
    ({"client_ip_address": "2001:DB8"}, ["Sensor"]),
    ({"client_ip_address": "2001:db8::/32"}, ["Sensor"]),
    ({"username": "ADM"}, ["dev-2"]),
    ({"listener_list": ("ssl",)}, ["Sensor"]),
    ({"proxy_version": 2}, ["Sensor", "dev-2", "dev-1"]),
    ({"proxy_version": 0}, ["old"]),
    ({"sort_property": "client_ip_adr", "sort_order": "ASC"}, ["old", "dev-1", "dev-2", "Sensor"]),
    ({"sort_property": "subscriptions_count"}, ["dev-2", "dev-1", "Sensor", "old"]),
    ({"text_search": "dev", "username": "user"}, ["dev-1"]),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=[str(query) for query, _ in QUERIES])
def test_queries(query: dict[str, Any], expected: list[str]) -> None:
    assert [found.client_id for found in matching(RECORDS, SessionQuery(**query))] == expected


@pytest.mark.parametrize("name", SessionQuery.sort_properties)
def test_every_column_sorts(name: str) -> None:
    assert len(matching(RECORDS, SessionQuery(sort_property=name))) == len(RECORDS)


WRONG = [
    ({"subscription_operation": "ABOUT"}, "subscription_operation must be one of EQUAL"),
    ({"client_ip_address": "10.0.0.1/8"}, "client_ip_address has host bits set"),
    ({"sort_property": "password"}, "sort_property must be one of connected_at"),
    ({"page_size": 1001}, "page_size must be between 1 and 1000"),
]


@pytest.mark.parametrize(("query", "said"), WRONG)
def test_wrong_queries(query: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SessionQuery(**query)


def test_the_row_as_json() -> None:
    tls = TlsInfo(
        "proxy", "TLSv1.3", "TLS_AES_256_GCM_SHA384", "broker.example", "sensor-17", client_cert_verified=True
    )
    row = record(
        "dev",
        connected=False,
        disconnected_at=5000,
        disconnect_reason="keep-alive",
        session_expiry_interval=60,
        tls=tls,
    ).to_json()
    assert row.pop("lastSeen") > 0
    assert row == {
        "clientId": "dev",
        "sessionId": "session-dev",
        "connectionState": "DISCONNECTED",
        "clientIpAdr": "192.0.2.10",
        "clientType": "DEVICE",
        "nodeId": "node-1",
        "subscriptionsCount": 0,
        "connectedAt": 1000,
        "disconnectedAt": 5000,
        "cleanStart": True,
        "keepAliveSeconds": 60,
        "sessionExpiryInterval": 60,
        "sessionEndTs": 65_000,
        "clientPort": 50123,
        "username": "user",
        "mqttVersion": "MQTT_3_1_1",
        "upstream": None,
        "upstreamConnectMs": None,
        "listener": "tcp",
        "proxyIpAdr": "10.0.0.9",
        "proxyPort": 4711,
        "proxyVersion": 2,
        "destinationIpAdr": "198.51.100.1",
        "destinationPort": 1883,
        "addressSource": "header",
        "vpcEndpointId": None,
        "disconnectReason": "keep-alive",
        "bytesIn": 7,
        "bytesOut": 0,
        "packetsIn": 0,
        "packetsOut": 0,
        "tls": {
            "endedAt": "proxy",
            "version": "TLSv1.3",
            "cipher": "TLS_AES_256_GCM_SHA384",
            "sni": "broker.example",
            "clientCertCn": "sensor-17",
            "clientCertVerified": True,
        },
    }


ADDRESSES = [
    (("192.0.2.1", 5), ("192.0.2.1", 5)),
    (("2001:DB8::1", 5, 0, 0), ("2001:db8::1", 5)),
    (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5)),
    (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5)),
    ("/run/app.sock", ("/run/app.sock", 0)),
    (b"\0abstract", ("\0abstract", 0)),
    ("", ("", 0)),
    (None, ("", 0)),
]


@pytest.mark.parametrize(("name", "expected"), ADDRESSES)
def test_addresses_have_one_text(name: Any, expected: Address) -> None:
    assert address_text(name) == expected


async def test_pages_are_of_what_there_is_now() -> None:
    async with running() as broker, log_in(broker.address(), connect("one")) as one:
        await one.ask(subscribe("a", "b"))
        async with log_in(broker.address(), connect("two", clean_session=False), source=OTHER) as two:
            sessions = broker.service.sessions
            page = await sessions.find(SessionQuery(page_size=1))
            assert (page.total_elements, page.total_pages, page.has_next) == (2, 2, True)
            (found,) = (await sessions.find(SessionQuery(subscriptions=2))).data
            assert found.client_id == "one"
            two.send(DISCONNECT)
            await two.end()
        (kept,) = (await sessions.find(SessionQuery(connected_status_list=("DISCONNECTED",)))).data
        assert (kept.client_id, kept.disconnect_reason) == ("two", "disconnect")
        assert (kept.traffic.packets_in, kept.traffic.packets_out) == (2, 1)
        # amqtt forgets it; so do we.
        del broker.service.broker.sessions["two"]
        assert (await sessions.find()).total_elements == 1
        assert await sessions.get("two") is None


async def test_counters_count() -> None:
    async with running() as broker, log_in(broker.address()) as client:
        await client.ask(subscribe("a"))
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.traffic.bytes_in == len(connect().encode() + subscribe("a"))
        assert record.traffic.bytes_out == 4 + 5
        assert broker.service.sources.transferred()["tcp"] == (
            record.traffic.bytes_in,
            record.traffic.bytes_out,
        )
        assert broker.service.sources.sessions() == {("tcp", "connected"): 1}
        counts = broker.service.sources.metrics.listener("tcp")
        assert counts.packets_in[1] == counts.packets_out[2] == 1
        assert counts.packets_in[8] == counts.packets_out[9] == 1


async def test_ten_operators_at_once_end_one_connection_once() -> None:
    async with running() as broker, log_in(broker.address()):
        answers = await asyncio.gather(*(broker.service.sessions.disconnect("dev") for _ in range(10)))
        assert any(answers)
        assert broker.service.metrics.disconnects["tcp", "administrative"] == 1
