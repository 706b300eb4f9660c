"""The list of sessions: TBMQ's filters and ours, order, pages, and the row as JSON."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt import SessionQuery
from proxyproto_rs.mqtt.model.connection import Connection, TlsInfo, address_text
from proxyproto_rs.mqtt.model.paging import camel_case
from proxyproto_rs.mqtt.model.session_record import SessionRecord, Traffic
from proxyproto_rs.mqtt.tables.session_query import SLICE, find

from ..http.many import fill
from ..peers import CLIENT, DISCONNECT, OTHER, connect, log_in, running, subscribe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

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


async def slices(
    records: Sequence[SessionRecord], size: int = SLICE
) -> AsyncIterator[Sequence[SessionRecord]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


@pytest.mark.parametrize("size", [1, SLICE])
@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=[str(query) for query, _ in QUERIES])
async def test_queries(query: dict[str, Any], expected: list[str], size: int) -> None:
    page = await find(slices(RECORDS, size), SessionQuery(**query))
    assert [found.client_id for found in page.data] == expected


MANY = [
    record(
        f"dev-{number * 7919 % 3000}" + "ä😀"[: number % 3],
        (
            f"10.{number % 3}.{number % 251}.{number % 7}" if number % 5 else f"2001:db8::{number % 99:x}",
            number,
        ),
        connected_at=number % 17,
        username=None if number % 3 else f"user-{number % 11}",
        listener=f"tcp-{number % 2}",
    )
    for number in range(3000)
]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
# The time of the last byte is computed anew for each look, so it differs by its rounding.
@pytest.mark.parametrize("name", sorted({*SessionQuery.sort_properties} - {"last_seen"}))
async def test_pages_of_every_order_are_parts_of_one_list_with_equal_values_by_client_id(
    name: str, order: Any
) -> None:
    options: dict[str, Any] = {"sort_property": name, "sort_order": order}

    def value(one: SessionRecord) -> Any:
        if name == "client_ip_adr":
            address = ipaddress.ip_address(one.connection.client[0])
            return address.version, int(address)
        shown = one.to_json()[camel_case(name)]
        return "" if shown is None else shown

    expected = sorted(sorted(MANY, key=lambda one: one.client_id), key=value, reverse=order == "DESC")
    for number, size in ((0, 50), (4, 500), (29, 100)):
        page = await find(slices(MANY), SessionQuery(page=number, page_size=size, **options))
        assert list(page.data) == expected[number * size : (number + 1) * size]
        assert (page.total_elements, page.has_next) == (3000, (number + 1) * size < 3000)
    cursor, walked = None, list[SessionRecord]()
    while cursor is not None or not walked:
        page = await find(slices(MANY), SessionQuery(cursor=cursor, page_size=1000, **options))
        cursor, walked = page.cursor, [*walked, *page.data]
        assert page.total_elements == 3000
    assert walked == expected


@dataclass
class Held:
    """A connected client, as the registry sees it."""

    record: SessionRecord
    reason: str | None = None

    def end(self, reason: str, detail: str = "") -> None:
        self.reason = reason


async def test_clients_log_in_while_many_sessions_are_listed() -> None:
    async with running() as broker:
        fill(broker.service, 20 * SLICE)
        sessions, turns = broker.service.sessions, 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        deep = SessionQuery(sort_property="client_ip_adr", page=15 * SLICE // 50)
        held: Any = {record.client_id: Held(record) for record in sessions.records()}
        sessions._clients = held
        ending = sessions.end_where("blocked", lambda record: record.username == "user-7")
        for listing in (
            sessions.find(),
            sessions.find(deep),
            sessions.sweep(),
            sessions.count_by_state(),
            ending,
        ):
            before = turns
            await listing
            assert turns - before >= 20
        ended = {client.record.client_id for client in held.values() if client.reason}
        assert ended == {f"dev-{number}" for number in range(7, 20 * SLICE, 1000)}
        held.clear()
        counting.cancel()


async def test_a_session_that_ends_while_sessions_are_listed_is_left_out() -> None:
    async with running() as broker:
        fill(broker.service, 3 * SLICE)
        listing = asyncio.create_task(broker.service.sessions.find())
        await asyncio.sleep(0)
        gone = f"dev-{3 * SLICE - 1}"
        del broker.service.sessions._records[gone]
        assert (await listing).total_elements == 3 * SLICE - 1


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


@pytest.mark.parametrize("value", [2**63, -(2**63)])
def test_a_cursor_that_no_store_could_look_for(value: int) -> None:
    forged = base64.urlsafe_b64encode(json.dumps(["connected_at", "DESC", value, "dev"]).encode()).decode()
    with pytest.raises(ValueError, match="cursor must be that of an earlier page"):
        SessionQuery(cursor=forged)


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
