"""Metrics of a running broker: names, labels, values; no client id and no address among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from prometheus_client import generate_latest

from proxyproto_rs.mqtt import BrokerConfig, ConfigError, StoreError
from proxyproto_rs.mqtt.collector import registry
from proxyproto_rs.mqtt.config import Loaded
from proxyproto_rs.mqtt.model.reasons import DISCONNECT_REASONS, REASONS
from proxyproto_rs.mqtt.model.records import BLOCK_TYPES, BlockedClient
from proxyproto_rs.mqtt.telling.certificate_expiry import expiry_of
from proxyproto_rs.mqtt.telling.metrics import Histogram

from .peers import DISCONNECT, connack, connect, dial, log_in, publish, running, subscribe

if TYPE_CHECKING:
    from pathlib import Path

    from interop.certificates import Certificates
    from proxyproto_rs.mqtt import BrokerService
    from proxyproto_rs.mqtt.model.login import Login

FAMILIES = {
    ("proxyproto_connections_total", "counter", frozenset({"listener", "outcome"})),
    ("proxyproto_pending", "gauge", frozenset({"listener"})),
    ("proxyproto_open", "gauge", frozenset({"listener"})),
    ("proxyproto_header_seconds", "histogram", frozenset({"listener", "le"})),
    ("proxyproto_build_info", "gauge", frozenset({"version", "python"})),
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
    ("proxyproto_mqtt_store_up", "gauge", frozenset()),
    ("proxyproto_mqtt_store_errors_total", "counter", frozenset()),
    ("proxyproto_mqtt_store_seconds", "histogram", frozenset({"le"})),
    ("proxyproto_mqtt_blocklist_age_seconds", "gauge", frozenset()),
    ("proxyproto_mqtt_blocklist_networks", "gauge", frozenset({"list"})),
    ("proxyproto_mqtt_blocklist_read_age_seconds", "gauge", frozenset({"list"})),
    ("proxyproto_mqtt_blocklist_read_successful", "gauge", frozenset({"list"})),
    ("proxyproto_mqtt_blocklist_hits_total", "counter", frozenset({"list"})),
    ("proxyproto_mqtt_config_reloads_total", "counter", frozenset({"result"})),
    ("proxyproto_mqtt_config_reload_successful", "gauge", frozenset()),
    ("proxyproto_mqtt_certificate_expiry_timestamp_seconds", "gauge", frozenset({"listener"})),
}

EMBEDDED = {
    *((f"proxyproto_mqtt_embedded_{name}", "gauge") for name in ("sessions", "subscriptions", "retained")),
    *(
        (f"proxyproto_mqtt_embedded_{name}_total", "counter")
        for name in ("dropped", "not_retained", "strangers")
    ),
}
"""Those of the embedded broker, without labels."""


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
    ours = {(name, kind) for name, kind in families if not name.endswith("_created")}
    assert {(name, kind) for name, kind in ours if not name.startswith("process_")} == {
        (name, kind) for name, kind, _ in FAMILIES
    }
    assert ("process_resident_memory_bytes", "gauge") in ours
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


async def test_the_embedded_brokers_own_numbers() -> None:
    limits = {"max_retained": 1, "max_queued": 1, "max_inflight": 1}
    behind: dict[str, Any] = {"backend": {"embedded": limits}, "auth": [{"plugin": f"{__name__}:knows"}]}
    async with running(**behind, amqtt={}) as broker:
        away = connect("away", clean_session=False)
        async with log_in(broker.address(), away) as client:
            await client.ask(subscribe("a", "b", qos=1))
        await broker.until(lambda: not broker.service.sessions.connected)
        async with log_in(broker.address()) as client:
            for number in range(4):
                await client.ask(publish("a", b"x", 1, number + 1))
            await client.ask(publish("c", b"kept", 1, retain=True))
            await client.ask(publish("d", b"one too many", 1, retain=True))
            text = scrape(broker.service)
    families = set(re.findall(r"^# TYPE (proxyproto_mqtt_embedded_\S+) (\S+)$", text, re.MULTILINE))
    assert {family for family in families if not family[0].endswith("_created")} == EMBEDDED
    for name, count in {"sessions": 2, "subscriptions": 2, "retained": 1, "not_retained_total": 1}.items():
        assert value(text, f"proxyproto_mqtt_embedded_{name}") == count, name
    assert value(text, "proxyproto_mqtt_embedded_dropped_total") > 0
    assert value(text, "proxyproto_mqtt_embedded_strangers_total") == 0
    assert "embedded" not in scrape(broker.service), "it has no numbers once it is closed"


def knows(login: Login) -> bool:
    """Know every user, as a plugin of `auth`."""
    return bool(login.username)


async def test_every_known_series_starts_at_zero_because_increase_misses_the_first_event_of_others() -> None:
    async with running() as broker:
        text = scrape(broker.service)
    for sample in (
        *(
            f'proxyproto_mqtt_connects_total{{listener="tcp",result="{reason}"}}'
            for reason in ("accepted", *REASONS)
        ),
        *(
            f'proxyproto_mqtt_disconnects_total{{listener="tcp",reason="{reason}"}}'
            for reason in DISCONNECT_REASONS
        ),
        *(f'proxyproto_mqtt_block_hits_total{{type="{kind}"}}' for kind in BLOCK_TYPES),
        'proxyproto_mqtt_sessions{listener="tcp",state="connected"}',
        'proxyproto_mqtt_packets_total{direction="in",listener="tcp",type="PUBLISH"}',
        'proxyproto_mqtt_acl_denied_total{action="publish"}',
        'proxyproto_mqtt_config_reloads_total{result="failure"}',
        'proxyproto_header_seconds_count{listener="tcp"}',
        "proxyproto_mqtt_store_errors_total",
    ):
        assert value(text, sample) == 0, sample
    assert value(text, "proxyproto_mqtt_store_up") == 1
    assert value(text, "proxyproto_mqtt_config_reload_successful") == 1
    assert 0 <= value(text, "proxyproto_mqtt_blocklist_age_seconds") < 60


async def test_the_state_of_the_store_and_of_reloads() -> None:
    async with running() as broker:
        service = broker.service
        with pytest.raises(ConfigError):
            await service.reload(
                Loaded(
                    BrokerConfig.model_validate({"listeners": {"new": {"type": "tcp", "bind": 0}}}), {}, ()
                )
            )
        await service.unauthorized._store.close()
        with pytest.raises(StoreError):
            await service.unauthorized.count()
        text = scrape(service)
    assert value(text, 'proxyproto_mqtt_config_reloads_total{result="failure"}') == 1
    assert value(text, "proxyproto_mqtt_config_reload_successful") == 0
    assert value(text, "proxyproto_mqtt_store_up") == 0
    assert value(text, "proxyproto_mqtt_store_errors_total") >= 1


async def test_when_certificates_end(certificates: Certificates, tmp_path: Path) -> None:
    tls = {"certfile": str(certificates.server), "keyfile": str(certificates.server)}
    async with running(listeners={"ssl": {"tls": tls}}) as broker:
        text = scrape(broker.service)
    certificate = x509.load_pem_x509_certificate(certificates.server.read_bytes())
    ends = certificate.not_valid_after_utc.timestamp()
    assert value(text, 'proxyproto_mqtt_certificate_expiry_timestamp_seconds{listener="ssl"}') == ends
    for junk in (b"", b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", b"\xff" * 100):
        (tmp_path / "junk.pem").write_bytes(junk)
        assert expiry_of(str(tmp_path / "junk.pem")) is None
    assert expiry_of(str(tmp_path / "none.pem")) is None


def test_a_histogram_counts_each_value_up_to_its_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.total == 8.65
