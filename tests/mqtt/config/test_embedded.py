"""`backend.embedded` and `acl`: how they are written, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from mqtt.backend.embedded.nodes import is_built
from proxyproto_rs.mqtt.config import BrokerConfig, ConfigError, load
from proxyproto_rs.mqtt.config.embedded import acl_rules, broker_options

if TYPE_CHECKING:
    from pathlib import Path

    from proxyproto_rs.mqtt.config import Loaded

TCP = "listeners: {tcp: {}}\n"
EMBEDDED = "backend: embedded\nauth: anonymous\n"


def read(tmp_path: Path, text: str, *, allow_anonymous: bool = False) -> Loaded:
    file = tmp_path / "broker.yaml"
    file.write_text(TCP + text)
    return load(file, environ={}, allow_anonymous=allow_anonymous)


def test_what_people_write_becomes_the_brokers_options(tmp_path: Path) -> None:
    text = """
backend: {embedded: {max_inflight: 16, max_retained: 10, session_expiry: 1h, shared_subscriptions: false,
  persistence: /var/lib/broker, sys_interval: 10s}}
auth: [{file: users.txt}]
mqtt: {max_packet_size: 1MiB}
acl:
  - {users: admin, allow: true}
  - {clients: [a, b], networks: "10.0.0.0/8, 2001:db8::1", topics: dev/%c/#, actions: publish, allow: yes}
"""
    config = read(tmp_path, text).config
    assert config.backend.embedded is not None
    assert broker_options(config.backend.embedded, config.mqtt) == {
        "max_inflight": 16,
        "max_queued": 1000,
        "max_retained": 10,
        "session_expiry": 3600.0,
        "shared_subscriptions": False,
        "persistence": "/var/lib/broker",
        "cluster": None,
        "sys_interval": 10.0,
        "max_packet_size": 1 << 20,
    }
    both = ("publish", "subscribe")
    assert acl_rules(config.acl) == [
        {
            "users": ("admin",),
            "clients": None,
            "networks": None,
            "topics": (),
            "actions": both,
            "allow": True,
        },
        {
            "users": None,
            "clients": ("a", "b"),
            "networks": ["10.0.0.0/8", "2001:db8::1/128"],
            "topics": ("dev/%c/#",),
            "actions": ("publish",),
            "allow": True,
        },
    ]
    shown = config.model_dump(mode="json")
    assert BrokerConfig.model_validate(shown) == config


REFUSED = [
    (
        "no-auth",
        "backend: embedded\n",
        "auth: must say who knows the passwords, as the embedded broker knows none: file, http or plugin;"
        " or anonymous, to let in whoever gives no user name",
    ),
    ("auth-upstream", "backend: embedded\nauth: [{file: u}, upstream]\n", "auth: must say who knows"),
    ("amqtt-too", EMBEDDED + "amqtt: {plugins: {a.B: {}}}\n", "amqtt: is not used with backend.embedded"),
    ("two", "backend: {embedded: {}, upstream: {servers: [a:1]}}\n", "must name one backend"),
    ("unknown", "backend: {embedded: {persist: x}}\nauth: anonymous\n", "backend.embedded.persist"),
    (
        "persistence",
        "backend: {embedded: {persistence: ''}}\nauth: anonymous\n",
        "backend.embedded.persistence",
    ),
    (
        "sys-interval",
        "backend: {embedded: {sys_interval: -1s}}\nauth: anonymous\n",
        "backend.embedded.sys_interval",
    ),
    ("inflight", "backend: {embedded: {max_inflight: 70000}}\nauth: anonymous\n", "max_inflight"),
    ("rule-without-allow", EMBEDDED + "acl: [{topics: [a]}]\n", "acl[0].allow"),
    ("topic", EMBEDDED + "acl: [{topics: [a, b/#/c], allow: true}]\n", "acl[0].topics[1]: `+` stands for"),
    ("placeholder", EMBEDDED + "acl: [{topics: [dev/%x], allow: true}]\n", "acl[0].topics[0]: after `%`"),
    ("action", EMBEDDED + "acl: [{actions: [read], allow: true}]\n", "acl[0].actions[0]"),
    ("network", EMBEDDED + "acl: [{networks: [10.0.0.1/8], allow: true}]\n", "acl[0].networks"),
    (
        "acl-elsewhere",
        "backend: {upstream: {servers: [a:1]}}\nacl: [{allow: true}]\n",
        "acl: needs backend.em",
    ),
]


@pytest.mark.parametrize(("text", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)


@pytest.mark.parametrize("written", ["0", "0s", "null"])
def test_no_interval_means_that_the_broker_says_nothing_of_itself(written: str, tmp_path: Path) -> None:
    text = f"backend: {{embedded: {{sys_interval: {written}}}}}\nauth: anonymous\n"
    config = read(tmp_path, text).config
    assert config.backend is not None
    assert config.backend.embedded is not None
    assert config.backend.embedded.sys_interval is None


def test_allow_anonymous_stands_for_auth_where_there_is_none(tmp_path: Path) -> None:
    loaded = read(tmp_path, "backend: embedded\n", allow_anonymous=True)
    assert [source.anonymous for source in loaded.config.auth] == [True]
    assert loaded.warnings == (
        "--allow-anonymous: there is no auth, so whoever gives no user name may log in",
    )
    loaded = read(tmp_path, "backend: embedded\nauth: [{file: users.txt}]\n", allow_anonymous=True)
    assert [source.file for source in loaded.config.auth] == ["users.txt"]


def clustered(peers: str, node: object = 1) -> str:
    return f"backend: {{embedded: {{cluster: {{node: {node}, peers: {peers}}}}}}}\nauth: anonymous\n"


def test_a_cluster_names_its_nodes(tmp_path: Path) -> None:
    text = "{1: 10.0.0.1:1900, '2': '[2001:db8::1]:1900', 3: three.example:1900}"
    file = tmp_path / "broker.yaml"
    file.write_text(TCP + clustered(text, 2))
    source = BrokerConfig.model_validate(yaml.safe_load(file.read_text()))
    assert source.backend is not None
    assert source.backend.embedded is not None
    assert broker_options(source.backend.embedded, source.mqtt)["cluster"] == {
        "node": 2,
        "peers": {1: "10.0.0.1:1900", 2: "[2001:db8::1]:1900", 3: "three.example:1900"},
    }
    assert BrokerConfig.model_validate(source.model_dump(mode="json")) == source


CLUSTERS = [
    ("one-node", "{1: a:1900}", 1, "must name all nodes under peers, at least 2, this one too (got 1)"),
    ("not-a-peer", "{1: a:1900, 2: b:1900}", 3, "must have node 3 under peers, as every node (got 1, 2)"),
    ("node-0", "{0: a:1900, 1: b:1900}", 1, "must be a node's number, from 1 to 65535"),
    ("node-word", "{1: a:1900, 2: b:1900}", "first", "must be a whole number"),
    ("no-port", "{1: a, 2: b:1900}", 1, 'must be "host:port" or "[IPv6]:port"'),
    ("no-host", "{1: ':1900', 2: b:1900}", 1, 'must be "host:port" or "[IPv6]:port"'),
    ("bare-ipv6", "{1: '::1:1900', 2: b:1900}", 1, 'must be "host:port" or "[IPv6]:port"'),
    ("last-port", "{1: a:65535, 2: b:1900}", 1, "must have a port from 1 to 65534"),
    ("odd-host", "{1: 'a b:1900', 2: b:1900}", 1, "must have a host's name or address"),
    ("everybody", "{1: 0.0.0.0:1900, 2: b:1900}", 1, "whoever reaches the port rules the cluster"),
    ("everybody-6", "{1: '[::]:1900', 2: b:1900}", 1, "whoever reaches the port rules the cluster"),
    ("twice", "{1: a:1900, 2: A:1900}", 1, "has a:1900 twice under peers, of nodes 1 and 2"),
    ("behind", "{1: a:1900, 2: a:1901}", 1, "has a:1901 twice under peers, of nodes 1 and 2"),
]


@pytest.mark.skipif(is_built(), reason="this extension is built with clusters")
def test_a_build_without_clusters_says_so(tmp_path: Path) -> None:
    told = r"backend.embedded.cluster: this build of proxyproto_rs knows no clusters"
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, clustered("{1: a:1900, 2: b:1900}"))


def test_a_cluster_keeps_nothing_on_the_disk(tmp_path: Path) -> None:
    text = clustered("{1: a:1900, 2: b:1900}").replace("embedded: {", "embedded: {persistence: x, ")
    with pytest.raises(ConfigError, match=r"backend.embedded.cluster: cannot be combined with persistence"):
        read(tmp_path, text)


def test_a_node_of_a_cluster_does_not_tell_of_itself(tmp_path: Path) -> None:
    text = clustered("{1: a:1900, 2: b:1900}").replace("embedded: {", "embedded: {sys_interval: 10s, ")
    told = r"backend.embedded.sys_interval: cannot be combined with cluster"
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("peers", "node", "told"), [row[1:] for row in CLUSTERS], ids=[row[0] for row in CLUSTERS]
)
def test_which_clusters_are_refused(peers: str, node: object, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, clustered(peers, node))
    assert "backend.embedded.cluster" in str(caught.value)
    assert told in str(caught.value)
