"""`backend.embedded` and `acl`: how they are written, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
  persistence: /var/lib/broker}}
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


def test_allow_anonymous_stands_for_auth_where_there_is_none(tmp_path: Path) -> None:
    loaded = read(tmp_path, "backend: embedded\n", allow_anonymous=True)
    assert [source.anonymous for source in loaded.config.auth] == [True]
    assert loaded.warnings == (
        "--allow-anonymous: there is no auth, so whoever gives no user name may log in",
    )
    loaded = read(tmp_path, "backend: embedded\nauth: [{file: users.txt}]\n", allow_anonymous=True)
    assert [source.file for source in loaded.config.auth] == ["users.txt"]
