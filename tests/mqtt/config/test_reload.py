"""What a reload may change, and what refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.config import BrokerConfig, ConfigError, load
from proxyproto_rs.mqtt.config.reload import (
    changed_sections,
    needs_restart,
    refuse_what_needs_a_restart,
)

if TYPE_CHECKING:
    from pathlib import Path

BASE: dict[str, Any] = {"listeners": {"tcp": {"bind": 1883}, "ws": {}}, "http": {}, "backend": "amqtt"}

FIXED = [
    ({"node_id": "b"}, ("node_id",)),
    ({"store": "sqlite::memory:"}, ("store",)),
    ({"store_file": "dsn"}, ("store_file",)),
    ({"amqtt": {"session_expiry_interval": 5}}, ("amqtt",)),
    ({"proxy_protocol": "required", "listeners": {"tcp": {"bind": 1883}, "ws": {"proxy_protocol": "off"}}},
     ("listeners", "tcp", "proxy_protocol")),
    ({"listeners": {"tcp": {"bind": 1884}, "ws": {}}}, ("listeners", "tcp", "bind")),
    ({"listeners": {"tcp": {"bind": 1883, "type": "ws"}, "ws": {}}}, ("listeners", "tcp", "type")),
    ({"listeners": {"tcp": {"bind": 1883, "proxy": {"backlog": 5}}, "ws": {}}},
     ("listeners", "tcp", "proxy", "backlog")),
    ({"listeners": {"tcp": {"bind": 1883, "proxy": {"reuse_port": True}}, "ws": {}}},
     ("listeners", "tcp", "proxy", "reuse_port")),
    ({"listeners": {"tcp": {"bind": 1883}}}, ("listeners", "ws")),
    ({"listeners": {"tcp": {"bind": 1883}, "ws": {}, "more": {"type": "tcp", "bind": 5}}},
     ("listeners", "more")),
    ({"http": {"bind": 1}}, ("http", "bind")),
    ({"http": {"proxy_protocol": "required"}}, ("http", "proxy_protocol")),
    ({"http": None}, ("http",)),
]  # fmt: skip

LIVE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        {"proxy": {"trusted": ["10.0.0.0/8"], "header_timeout": "9s"}},
        ("proxy", "listeners.tcp", "listeners.ws"),
    ),
    ({"tls_defaults": {"min_version": "TLSv1.3"}}, ("tls_defaults",)),
    ({"mqtt": {"auth_timeout": 3}}, ("mqtt",)),
    ({"identity": {"use_as": "none"}}, ("listeners.tcp", "listeners.ws", "identity")),
    ({"access": [{"action": "deny", "users": ["x"]}]}, ("access",)),
    ({"limits": {"max_sessions": 3}}, ("limits",)),
    ({"auto_block": {"enabled": True}}, ("auto_block",)),
    ({"unauthorized": {"ttl": 5}}, ("unauthorized",)),
    ({"blocked": {"cleanup_ttl": 5}}, ("blocked",)),
    ({"audit": {"file": "x"}}, ("audit",)),
    ({"log": {"level": "DEBUG"}}, ("log",)),
    ({"http": {"token": "t"}}, ("http",)),
]


def _config(**sections: Any) -> BrokerConfig:
    return BrokerConfig.model_validate({**BASE, **sections})


@pytest.mark.parametrize(("change", "path"), FIXED, ids=[".".join(path) for _, path in FIXED])
def test_what_needs_a_restart_is_named(change: dict[str, Any], path: tuple[str, ...]) -> None:
    assert [named for named, _ in needs_restart(_config(), _config(**change))] == [path]


@pytest.mark.parametrize(("change", "sections"), LIVE, ids=["+".join(change) for change, _ in LIVE])
def test_what_may_change_while_running(change: dict[str, Any], sections: tuple[str, ...]) -> None:
    old, new = _config(), _config(**change)
    assert list(needs_restart(old, new)) == []
    assert changed_sections(old, new) == sections


def test_a_refused_reload_names_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.yaml").write_text(
        "listeners:\n  tcp: {bind: 1884}\nstore: sqlite:x\n"
        "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n"
    )
    old = BrokerConfig.model_validate({"listeners": {"tcp": {"bind": 1883}}, "backend": "amqtt"})
    with pytest.raises(ConfigError) as caught:
        refuse_what_needs_a_restart(old, load("b.yaml", environ={}))
    assert str(caught.value).splitlines() == [
        "b.yaml:3: store: has changed from None to sqlite:x: this needs a restart",
        "b.yaml:4: amqtt: has changed, and amqtt cannot reload: this needs a restart",
        "b.yaml:2: listeners.tcp.bind: has changed from :1883 to :1884: this needs a restart",
    ]
