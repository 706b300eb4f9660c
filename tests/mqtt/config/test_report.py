"""`--print-config`: every effective value, where it came from, and no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.config import ConfigError, load
from proxyproto_rs.mqtt.config.reload import refuse_what_needs_a_restart
from proxyproto_rs.mqtt.config.report import report

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
proxy:
  header_timeout: 15s
listeners:
  ssl:
    bind: "0.0.0.0:8883"
    tls: {certfile: c, keyfile: k, key_password: "${PW}"}
access:
  - {users: [admin], action: allow}
http: {token: abc}
amqtt:
  plugins:
    amqtt.plugins.authentication.AnonymousAuthPlugin: {}
    amqtt.plugins.sys.broker.BrokerSysPlugin: {db_password: xyz, url: "db://me:pw@host/x"}
"""


def test_values_and_their_origins(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(TEXT)
    lines = report(
        load(path, environ={"PW": "hunter2", "LISTENER_SSL_BIND_PORT": "9999", "MQTT_SESSIONS_LIMIT": "3"})
    ).splitlines()
    for line in (
        f'proxy.header_timeout: "15s"  # {path}:2',
        f'listeners.ssl.proxy.header_timeout: "15s"  # {path}:2',
        'listeners.ssl.bind: "0.0.0.0:9999"  # LISTENER_SSL_BIND_PORT',
        'listeners.ssl.proxy_protocol: "off"  # default',
        f'listeners.ssl.tls.key_password: "***"  # {path}:6 (${{PW}})',
        f'access[0].users: ["admin"]  # {path}:8',
        "limits.max_sessions: 3  # MQTT_SESSIONS_LIMIT",
        f'http.token: "***"  # {path}:9',
        "store: null  # default",
        f'amqtt.plugins.amqtt.plugins.sys.broker.BrokerSysPlugin.db_password: "***"  # {path}:13',
        f'amqtt.plugins.amqtt.plugins.sys.broker.BrokerSysPlugin.url: "db://***@host/x"  # {path}:13',
    ):
        assert line in lines


STORES = [
    ("postgresql://me@host/x", "postgresql://***@host/x"),
    ("postgresql://me:hunter2@h1,h2/x?sslmode=require", "postgresql://***@h1,h2/x?sslmode=require"),
    ("postgresql://host/x?user=me&password=hunter2&sslmode=require",
     "postgresql://host/x?user=me&password=***&sslmode=require"),
    ("postgresql://me:${PW}@host/x", "postgresql://***@host/x"),
]  # fmt: skip


@pytest.mark.parametrize(("store", "said"), STORES, ids=[said for _, said in STORES])
def test_the_password_of_a_store_is_not_shown(store: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(f"listeners: {{tcp: {{}}}}\nstore: {store}\n")
    loaded = load(path, environ={"PW": "hunter2"}, allow_anonymous=True)
    assert f'store: "{said}"  # ' in report(loaded)
    path.write_text(f"listeners: {{tcp: {{}}}}\nstore: {store}2\n")
    again = load(path, environ={"PW": "hunter2"}, allow_anonymous=True)
    with pytest.raises(ConfigError) as refused:
        refuse_what_needs_a_restart(loaded.config, again)
    assert "hunter2" not in str(refused.value)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(TEXT)
    said = report(load(path, environ={"PW": "hunter2"}))
    for secret in ("hunter2", "abc", "xyz", ":pw@"):
        assert secret not in said
