"""Values of the file as they come out: units, words, defaults, and what a listener inherits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.config import Bind, BrokerConfig, Rate
from proxyproto_rs.mqtt.config.values import (
    format_duration,
    parse_bind,
    parse_bool,
    parse_duration,
    parse_listener_bind,
    parse_networks,
    parse_rates,
    parse_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _config(**sections: Any) -> BrokerConfig:
    return BrokerConfig.model_validate(sections)


VALUES: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (parse_duration, 5, 5.0),
    (parse_duration, 0.5, 0.5),
    (parse_duration, "90", 90.0),
    (parse_duration, "250ms", 0.25),
    (parse_duration, "5s", 5.0),
    (parse_duration, "10m", 600.0),
    (parse_duration, "1.5h", 5400.0),
    (parse_duration, "3d", 259200.0),
    (parse_size, 65536, 65536),
    (parse_size, "64KiB", 65536),
    (parse_size, "1MiB", 1048576),
    (parse_size, "2 MB", 2000000),
    (parse_bool, "On", True),
    (parse_bool, "0", False),
    (parse_bind, "0.0.0.0:1883", Bind("0.0.0.0", 1883)),
    (parse_bind, ":1883", Bind("", 1883)),
    (parse_bind, 1883, Bind("", 1883)),
    (parse_listener_bind, 1883, Bind("", 1883)),
    (parse_listener_bind, "systemd:mqtt", Bind("", 0, "mqtt")),
    (parse_bind, "[::]:1883", Bind("::", 1883)),
    (parse_bind, "localhost:0", Bind("localhost", 0)),
    (parse_rates, "10:1,300:60", (Rate(10, 1.0), Rate(300, 60.0))),
    (parse_rates, "", ()),
]

NOT_VALUES: list[tuple[Callable[[Any], Any], Any]] = [
    (parse_duration, True),
    (parse_duration, "5 weeks"),
    (parse_duration, ""),
    (parse_size, "1.5MiB"),
    (parse_size, True),
    (parse_bool, "perhaps"),
    (parse_bool, 2),
    (parse_bind, "::1:1883"),
    (parse_bind, "host"),
    (parse_bind, "systemd:mqtt"),
    (parse_listener_bind, "systemd:"),
    (parse_listener_bind, "systemd:a:b"),
    (parse_bind, True),
    (parse_rates, "10"),
    (parse_rates, "0:1"),
    (parse_networks, 5),
    (parse_networks, ["10.0.0.1/8"]),
]


@pytest.mark.parametrize(
    ("parse", "written", "meant"), VALUES, ids=[f"{p.__name__}-{w}" for p, w, _ in VALUES]
)
def test_a_value_is_read_as_it_is_written(parse: Callable[[Any], Any], written: Any, meant: Any) -> None:
    assert parse(written) == meant


@pytest.mark.parametrize(("parse", "written"), NOT_VALUES, ids=[f"{p.__name__}-{w}" for p, w in NOT_VALUES])
def test_what_is_no_value_is_refused(parse: Callable[[Any], Any], written: Any) -> None:
    with pytest.raises(ValueError, match=r"must|has"):
        parse(written)


@pytest.mark.parametrize(
    ("seconds", "text"), [(259200.0, "3d"), (90.0, "90s"), (600.0, "10m"), (0.25, "0.25s")]
)
def test_a_duration_is_shown_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


def test_networks_may_be_one_text_and_mapped_addresses_are_ipv4() -> None:
    assert [str(network) for network in parse_networks("10.0.0.0/8, ::ffff:192.0.2.1 2001:db8::/32")] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]


AMQTT = "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: }}\n"

COMPLETE = """
node_id: ""
proxy_protocol: off
proxy:
  trusted: null
  untrusted: refuse
  versions: [1, 2]
  header_timeout: 5s
  max_header_size: 4096
  max_pending: 4096
  backlog: 1024
  reuse_port: false
  health_checks: deliver
  allow: []
  deny: []
  max_connections: 0
  max_connections_per_client: 0
  max_rate_per_client: 0
  burst_per_client: 0
  require_tls: false
  require_client_cert: false
listeners:
  tcp: {bind: "0.0.0.0:1883"}
  ssl: {bind: "0.0.0.0:8883", proxy_protocol: required, tls: {client_certificate: optional}}
  ws:
    bind: "0.0.0.0:8084"
    ws: {path: /mqtt, subprotocols: [mqtt, mqttv3.1], origins: null, forwarded: null}
  wss: {bind: "0.0.0.0:8085", tls: {}, ws: {}}
tls_defaults: {certfile: s.pem, keyfile: s.key, key_password: null, cafile: ca.pem, client_certificate: none,
  min_version: TLSv1.2, ciphers: null, alpn: [mqtt], strict_x509: null}
mqtt: {tls_timeout: 10s, ws_timeout: 10s, connect_timeout: 10s, auth_timeout: 10s, packet_timeout: 30s,
  max_connect_size: 16384, max_packet_size: 65536, max_send_buffer: 1MiB, keepalive_factor: 1.5,
  client_id_owner: refuse}
identity: {source: none, use_as: username, allow_pattern: null}
access: []
limits: {max_sessions: 0, max_sessions_per_client: 0, max_unauthenticated: 1024, logins_at_once: 16,
  publish: ""}
auto_block: {enabled: false, max_failures: 10, window: 60s, block_for: 60s, escalate: 2.0, max_block: 1h,
  forget: 24h, ipv6_prefix: 64, direct: false, never: []}
unauthorized: {enabled: true, ttl: 3d, max_rows: 100000}
blocked: {cleanup_ttl: 7d}
store: null
audit: {file: null}
log: {format: text, level: INFO}
http: {bind: "127.0.0.1:8083", token: null, token_file: null, read_token: null, hosts: [], tls: null,
  proxy_protocol: off, metrics_auth: false}
amqtt:
  session_expiry_interval: 604800
  plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: }
"""


def test_the_whole_file_says_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(COMPLETE)
    written = BrokerConfig.load(tmp_path / "broker.yaml", environ={})
    silent = _config(
        listeners={
            "tcp": {},
            "ssl": {"proxy_protocol": "required", "tls": {"client_certificate": "optional"}},
            "ws": {},
            "wss": {},
        },
        tls_defaults={"certfile": "s.pem", "keyfile": "s.key", "cafile": "ca.pem"},
        amqtt={"plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": None}},
    )
    assert written == silent
    assert [str(listener.bind) for listener in written.listeners.values()] == [
        "0.0.0.0:1883",
        "0.0.0.0:8883",
        "0.0.0.0:8084",
        "0.0.0.0:8085",
    ]


def test_a_listener_inherits_what_it_does_not_say() -> None:
    config = _config(
        proxy_protocol="required",
        proxy={"trusted": ["10.0.0.0/8"], "max_connections": 5},
        identity={"source": "header", "use_as": "none"},
        listeners={
            "tcp": {},
            "lan": {"type": "tcp", "bind": 0, "proxy_protocol": False, "identity": {"source": "none"}},
            "other": {"type": "tcp", "bind": 0, "proxy": {"max_connections": 7}},
        },
    )
    tcp, lan, other = config.listeners.values()
    assert (tcp.proxy_protocol, lan.proxy_protocol, other.proxy_protocol) == ("required", "off", "required")
    assert (tcp.proxy.max_connections, other.proxy.max_connections) == (5, 7)
    assert other.proxy.trusted == tcp.proxy.trusted == parse_networks(["10.0.0.0/8"])
    assert (tcp.identity.source, lan.identity.source, lan.identity.use_as) == ("header", "none", "none")


def test_no_limit_is_none_for_the_listener() -> None:
    config = _config(proxy={"max_connections": 0, "max_rate_per_client": 9}, listeners={"tcp": {}})
    options = config.listeners["tcp"].listener_options()
    assert options["max_connections"] is None
    assert options["max_rate_per_client"] == 9
    assert options["allow"] is None
    assert options["trusted"] is None
    nobody = _config(proxy={"trusted": []}, listeners={"tcp": {}}).listeners["tcp"]
    assert nobody.listener_options()["trusted"] == ()


@pytest.mark.parametrize("written", ["on", "true", "yes", "required", '"on"'])
def test_yaml_words_for_required(written: str, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(f"listeners: {{tcp: {{proxy_enabled: {written}}}}}\n" + AMQTT)
    assert BrokerConfig.load(tmp_path / "b.yaml", environ={}).listeners["tcp"].proxy_protocol == "required"


def test_a_merged_mapping_gives_way_to_own_keys(tmp_path: Path) -> None:
    text = "listeners:\n  tcp: &one {bind: 1, proxy: {backlog: 5}}\n  two: {<<: *one, type: tcp, bind: 2}\n"
    (tmp_path / "b.yaml").write_text(text + AMQTT)
    two = BrokerConfig.load(tmp_path / "b.yaml", environ={}).listeners["two"]
    assert (two.bind.port, two.proxy.backlog) == (2, 5)
