"""Metrics of a running broker: names, labels, values; no client id and no address among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from proxyproto_rs.mqtt.collector import registry
from proxyproto_rs.mqtt.model.records import BlockedClient
from proxyproto_rs.mqtt.telling.metrics import Histogram

from .peers import DISCONNECT, connack, connect, dial, log_in, publish, running, subscribe

if TYPE_CHECKING:
    from proxyproto_rs.mqtt import BrokerService

FAMILIES = {
    ("proxyproto_connections_total", "counter", frozenset({"listener", "outcome"})),
    ("proxyproto_pending", "gauge", frozenset({"listener"})),
    ("proxyproto_mqtt_connects_total", "counter", frozenset({"listener", "result"})),
    ("proxyproto_mqtt_disconnects_total", "counter", frozenset({"listener", "reason"})),
    ("proxyproto_mqtt_sessions", "gauge", frozenset({"listener", "state"})),
    ("proxyproto_mqtt_connect_seconds", "histogram", frozenset({"listener", "le"})),
    ("proxyproto_mqtt_auth_seconds", "histogram", frozenset({"le"})),
    ("proxyproto_mqtt_bytes_total", "counter", frozenset({"listener", "direction"})),
    ("proxyproto_mqtt_packets_total", "counter", frozenset({"listener", "direction", "type"})),
    ("proxyproto_mqtt_acl_denied_total", "counter", frozenset({"action"})),
    ("proxyproto_mqtt_publish_delays_total", "counter", frozenset()),
    ("proxyproto_mqtt_unauthorized_clients", "gauge", frozenset()),
    ("proxyproto_mqtt_unauthorized_dropped_total", "counter", frozenset()),
    ("proxyproto_mqtt_blocked_clients", "gauge", frozenset({"type"})),
    ("proxyproto_mqtt_block_hits_total", "counter", frozenset({"type"})),
    ("proxyproto_mqtt_auto_blocks_total", "counter", frozenset()),
    ("proxyproto_mqtt_audit_dropped_total", "counter", frozenset()),
}


def value(text: str, sample: str) -> float:
    (found,) = re.findall(rf"^{re.escape(sample)} (.*)$", text, re.MULTILINE)
    return float(found)


def scrape(service: BrokerService) -> str:
    return generate_latest(registry(service.sources)).decode()


async def test_what_a_scrape_says() -> None:
    async with running() as broker:
        await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="blocked-one"))
        async with log_in(broker.address(), connect("dev-7")) as client:
            await client.ask(subscribe("a", "secret/b"))
            await client.ask(publish("a", b"hello", 1))
            async with log_in(broker.address(), connect("dev-8", password=b"wrong")) as other:
                assert other.connack == connack(5)
            async with log_in(broker.address(), connect("blocked-one")) as other:
                assert other.connack == connack(5)
            async with dial(broker.address(), b"\x10\x0e", header=b"") as other:
                assert await other.end() == b""
            await broker.rows(3)
            connected = scrape(broker.service)
            client.send(DISCONNECT)
            await client.end()
        await broker.until(lambda: not broker.service.sessions.connected)
        ended = scrape(broker.service)

    families = set(re.findall(r"^# TYPE (\S+) (\S+)$", ended, re.MULTILINE))
    assert {(name, kind) for name, kind in families if not name.endswith("_created")} == {
        (name, kind) for name, kind, _ in FAMILIES
    }
    for name, kind, labels in FAMILIES:
        samples = re.findall(rf"^{name}(?:_bucket)?(?:{{(.*)}})? ", ended, re.MULTILINE)
        seen = {frozenset(re.findall(r'(\w+)="', sample)) for sample in samples}
        assert seen <= {labels}, (name, kind)
    for strange in ("dev-7", "dev-8", "blocked-one", "192.0.2.10", "secret"):
        assert strange not in ended

    for sample, number in {
        'proxyproto_connections_total{listener="tcp",outcome="v2"}': 3,
        'proxyproto_connections_total{listener="tcp",outcome="missing-header"}': 1,
        'proxyproto_pending{listener="tcp"}': 0,
        'proxyproto_mqtt_connects_total{listener="tcp",result="accepted"}': 1,
        'proxyproto_mqtt_connects_total{listener="tcp",result="bad-credentials"}': 1,
        'proxyproto_mqtt_connects_total{listener="tcp",result="blocked"}': 1,
        'proxyproto_mqtt_sessions{listener="tcp",state="connected"}': 1,
        'proxyproto_mqtt_connect_seconds_count{listener="tcp"}': 1,
        "proxyproto_mqtt_auth_seconds_count": 2,
        'proxyproto_mqtt_packets_total{direction="in",listener="tcp",type="SUBSCRIBE"}': 1,
        'proxyproto_mqtt_packets_total{direction="in",listener="tcp",type="PUBLISH"}': 1,
        'proxyproto_mqtt_packets_total{direction="out",listener="tcp",type="PUBACK"}': 1,
        'proxyproto_mqtt_acl_denied_total{action="subscribe"}': 1,
        'proxyproto_mqtt_blocked_clients{type="CLIENT_ID"}': 1,
        'proxyproto_mqtt_block_hits_total{type="CLIENT_ID"}': 1,
        "proxyproto_mqtt_audit_dropped_total": 0,
    }.items():
        assert value(connected, sample) == number, sample

    ends = 'proxyproto_mqtt_disconnects_total{listener="tcp",reason="disconnect"}'
    assert value(ended, ends) == 1
    for direction in ("in", "out"):
        sample = f'proxyproto_mqtt_bytes_total{{direction="{direction}",listener="tcp"}}'
        assert 0 < value(connected, sample) <= value(ended, sample), "an end loses no byte"


def test_a_histogram_counts_each_value_up_to_its_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.total == 8.65
