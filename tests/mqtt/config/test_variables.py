"""TBMQ's variables: names, words, order of precedence, and what is said when one overrides the file."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.config import BrokerConfig, ConfigError, Loaded, load
from proxyproto_rs.mqtt.config.broker import refuse_unusable

if TYPE_CHECKING:
    from pathlib import Path

AMQTT = "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n"
TLS = "tls_defaults: {certfile: c, keyfile: k}\n"


def _load(tmp_path: Path, text: str, **variables: str) -> Loaded:
    path = tmp_path / "broker.yaml"
    path.write_text(text + AMQTT)
    return load(path, environ=variables)


# Global key, global variable, listener's key, listener's variable -> the value in force. None: not given.
PRECEDENCE = list(itertools.product((None, "off", "required"), (None, "true", "false"), repeat=2))


def _expected(glob: str | None, glob_var: str | None, own: str | None, own_var: str | None) -> str:
    words = {"true": "required", "false": "off"}
    for said in (own_var and words[own_var], own, glob_var and words[glob_var], glob):
        if said:
            return said
    return "off"


@pytest.mark.parametrize(("glob", "glob_var", "own", "own_var"), PRECEDENCE)
def test_a_listeners_variable_then_its_key_then_the_global_variable_then_the_global_key(
    glob: str | None, glob_var: str | None, own: str | None, own_var: str | None, tmp_path: Path
) -> None:
    text = f"proxy_protocol: {glob}\n" if glob else ""
    text += f"listeners: {{tcp: {{proxy_protocol: {own}}}}}\n" if own else "listeners: {tcp: {}}\n"
    variables = {}
    if glob_var:
        variables["MQTT_PROXY_PROTOCOL_ENABLED"] = glob_var
    if own_var:
        variables["MQTT_TCP_PROXY_PROTOCOL_ENABLED"] = own_var
    loaded = _load(tmp_path, text, **variables)
    assert loaded.config.listeners["tcp"].proxy_protocol == _expected(glob, glob_var, own, own_var)


@pytest.mark.parametrize("name", ["tcp", "ssl", "ws", "wss"])
def test_each_listener_has_its_variable_and_no_other_is_touched(name: str, tmp_path: Path) -> None:
    text = TLS + "listeners: {tcp: {}, ssl: {}, ws: {}, wss: {}, other: {type: tcp, bind: 0}}\n"
    loaded = _load(tmp_path, text, **{f"MQTT_{name.upper()}_PROXY_PROTOCOL_ENABLED": "true"})
    required = [key for key, value in loaded.config.listeners.items() if value.proxy_protocol == "required"]
    assert required == [name]


@pytest.mark.parametrize("word", ["true", "TRUE", "on", "Yes", "1"])
def test_words_for_true(word: str, tmp_path: Path) -> None:
    loaded = _load(tmp_path, "listeners: {tcp: {}}\n", MQTT_PROXY_PROTOCOL_ENABLED=word)
    assert loaded.config.listeners["tcp"].proxy_protocol == "required"


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    text = "proxy_protocol: required\nlisteners: {tcp: {}}\n"
    loaded = _load(tmp_path, text, MQTT_TCP_PROXY_PROTOCOL_ENABLED="", LISTENER_TCP_BIND_PORT=" ")
    assert loaded.config.listeners["tcp"].proxy_protocol == "required"
    assert loaded.warnings == ()


WRONG = [
    ("MQTT_PROXY_PROTOCOL_ENABLED", "maybe", 'proxy_protocol: must be true or false (got "maybe")'),
    ("MQTT_WS_PROXY_PROTOCOL_ENABLED", "2", 'listeners.ws.proxy_protocol: must be true or false (got "2")'),
    ("LISTENER_TCP_ENABLED", "x", 'listeners.tcp: must be true or false (got "x")'),
    (
        "LISTENER_TCP_BIND_PORT",
        "http",
        'listeners.tcp.bind: must be "host:port", ":port", "[IPv6]:port" or a port (got "0.0.0.0:http")',
    ),
    ("SECURITY_UNAUTH_CLIENTS_ENABLED", "x", 'unauthorized.enabled: must be true or false (got "x")'),
    ("SQL_TTL_UNAUTHORIZED_CLIENT_TTL", "3d", 'unauthorized.ttl: must be a number (got "3d")'),
    ("BLOCKED_CLIENT_CLEANUP_TTL_MINUTES", "-1", "blocked.cleanup_ttl: must be greater than 0 (got -60.0)"),
    ("MQTT_SESSIONS_LIMIT", "many", 'limits.max_sessions: must be a whole number (got "many")'),
    (
        "MQTT_WS_FORWARD_HEADERS_ENABLED",
        "true",
        "listeners.ws.ws.forwarded: needs ws.forwarded.trusted in the file: it names the proxies to believe",
    ),
]


@pytest.mark.parametrize(("variable", "value", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_variable_is_named(variable: str, value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "listeners: {tcp: {}, ws: {}}\n", **{variable: value})
    assert str(caught.value) == f"{variable}: {said}"


def test_a_port_replaces_a_socket_of_systemds(tmp_path: Path) -> None:
    loaded = _load(tmp_path, 'listeners: {tcp: {bind: "systemd:tcp"}}\n', LISTENER_TCP_BIND_PORT="1999")
    assert str(loaded.config.listeners["tcp"].bind) == "0.0.0.0:1999"
    assert loaded.warnings == (
        f'LISTENER_TCP_BIND_PORT=1999 overrides listeners.tcp.bind: "systemd:tcp" ({tmp_path}/broker.yaml:1)',
    )


def test_what_variables_set(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        TLS + "listeners: {tcp: {}, ssl: {}, ws: {ws: {forwarded: {trusted: [10.0.0.0/8]}}}}\n",
        LISTENER_TCP_BIND_ADDRESS="::",
        LISTENER_TCP_BIND_PORT="1999",
        LISTENER_SSL_PEM_CERT="/etc/cert.pem",
        LISTENER_SSL_PEM_KEY="/etc/key.pem",
        LISTENER_SSL_PEM_KEY_PASSWORD="geheim",
        MQTT_WS_FORWARD_HEADERS_ENABLED="false",
        HTTP_BIND_ADDRESS="127.0.0.2",
        HTTP_BIND_PORT="9000",
        SECURITY_UNAUTH_CLIENTS_ENABLED="off",
        SQL_TTL_UNAUTHORIZED_CLIENT_TTL="60",
        BLOCKED_CLIENT_CLEANUP_TTL_MINUTES="5",
        MQTT_SESSIONS_LIMIT="7",
    ).config
    tcp, ssl, ws = config.listeners.values()
    assert str(tcp.bind) == "[::]:1999"
    assert ssl.tls is not None
    assert (ssl.tls.certfile, ssl.tls.keyfile) == ("/etc/cert.pem", "/etc/key.pem")
    assert ssl.tls.key_password is not None
    assert ssl.tls.key_password.get_secret_value() == "geheim"
    assert ws.ws is not None
    assert ws.ws.forwarded is None
    assert config.serves_http
    assert str(config.http.bind) == "127.0.0.2:9000"
    assert (config.unauthorized.enabled, config.unauthorized.ttl) == (False, 60.0)
    assert config.blocked.cleanup_ttl == 300.0
    assert config.limits.max_sessions == 7


EMBEDDED_VARIABLES = {
    "MQTT_MAX_IN_FLIGHT_MSGS": "100",
    "MQTT_PERSISTENT_SESSION_DEVICE_PERSISTED_MESSAGES_LIMIT": "7",
    "MQTT_CLIENT_SESSION_EXPIRY_MAX_EXPIRY_INTERVAL": "60",
}
BACKENDS = ["", "backend: embedded\n", "backend:\n  embedded:\n", "backend: {embedded: {max_inflight: 5}}\n"]


@pytest.mark.parametrize("backend", BACKENDS, ids=["none", "word", "empty", "keys"])
def test_what_variables_set_of_the_embedded_broker(backend: str, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("listeners: {tcp: {}}\nauth: anonymous\n" + backend)
    loaded = load(tmp_path / "broker.yaml", environ=EMBEDDED_VARIABLES)
    embedded = loaded.config.backend.embedded
    assert embedded is not None
    assert (embedded.max_inflight, embedded.max_queued, embedded.session_expiry) == (100, 7, 60.0)
    assert loaded.origin(("backend", "embedded", "max_inflight")) == "MQTT_MAX_IN_FLIGHT_MSGS"
    overrides = (
        f"MQTT_MAX_IN_FLIGHT_MSGS=100 overrides backend.embedded.max_inflight: 5 ({tmp_path}/broker.yaml:3)"
    )
    assert loaded.warnings == ((overrides,) if "5" in backend else ())


def test_a_wrong_variable_of_the_embedded_broker_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"^MQTT_MAX_IN_FLIGHT_MSGS: backend\.embedded\.max_inflight: must be "
    ):
        load(None, environ={"MQTT_MAX_IN_FLIGHT_MSGS": "many"}, allow_anonymous=True)


def test_variables_of_the_embedded_broker_say_where_they_change_nothing(tmp_path: Path) -> None:
    assert _load(tmp_path, "listeners: {tcp: {}}\n", **EMBEDDED_VARIABLES).warnings == (
        "MQTT_MAX_IN_FLIGHT_MSGS changes nothing: the backend is amqtt, and only embedded has max_inflight",
        "MQTT_PERSISTENT_SESSION_DEVICE_PERSISTED_MESSAGES_LIMIT changes nothing: the backend is amqtt, and only"
        " embedded has max_queued",
        "MQTT_CLIENT_SESSION_EXPIRY_MAX_EXPIRY_INTERVAL changes nothing: the backend is amqtt, and only embedded has"
        " session_expiry",
    )


def test_without_a_file_tcp_and_ws_are_open() -> None:
    config = BrokerConfig.load(None, environ={}, allow_anonymous=True)
    assert {name: str(listener.bind) for name, listener in config.listeners.items()} == {
        "tcp": "0.0.0.0:1883",
        "ws": "0.0.0.0:8084",
    }
    assert {listener.proxy_protocol for listener in config.listeners.values()} == {"off"}


def test_without_a_file_one_variable_makes_all_listeners_expect_headers() -> None:
    variables = {
        "MQTT_PROXY_PROTOCOL_ENABLED": "true",
        "LISTENER_SSL_ENABLED": "true",
        "LISTENER_SSL_PEM_CERT": "c",
        "LISTENER_SSL_PEM_KEY": "k",
        "LISTENER_WS_ENABLED": "false",
    }
    config = BrokerConfig.load(None, environ=variables, allow_anonymous=True)
    assert {name: listener.proxy_protocol for name, listener in config.listeners.items()} == {
        "tcp": "required",
        "ssl": "required",
    }


def test_without_a_file_nobody_is_let_in_unless_it_is_said() -> None:
    with pytest.raises(ConfigError, match="auth: must say who knows the passwords"):
        BrokerConfig.load(None, environ={})


def test_letting_everybody_in_is_said() -> None:
    assert load(None, environ={}, allow_anonymous=True).warnings == (
        "--allow-anonymous: there is no auth, so whoever gives no user name may log in",
    )


def test_an_override_is_said_with_the_line_that_lost(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        "proxy_protocol: off\nlisteners:\n  tcp: {bind: 1883}\n  ws: {}\nunauthorized: {ttl: 1d}\n",
        MQTT_PROXY_PROTOCOL_ENABLED="true",
        LISTENER_TCP_BIND_PORT="1884",
        SQL_TTL_UNAUTHORIZED_CLIENT_TTL="86400",
        LISTENER_WS_ENABLED="no",
        LISTENER_SSL_ENABLED="yes",
    )
    file = tmp_path / "broker.yaml"
    assert loaded.warnings == (
        f"MQTT_PROXY_PROTOCOL_ENABLED=true overrides proxy_protocol: false ({file}:1)",
        f"LISTENER_TCP_BIND_PORT=1884 overrides listeners.tcp.bind: 1883 ({file}:3)",
        "LISTENER_SSL_ENABLED=true changes nothing: with a file only the listeners it names are opened,"
        " and it names no 'ssl'",
        f"LISTENER_WS_ENABLED=false closes listeners.ws ({file}:4)",
    )
    assert list(loaded.config.listeners) == ["tcp"]


def test_an_access_rule_may_name_a_listener_that_a_variable_closes(tmp_path: Path) -> None:
    text = "listeners: {tcp: {}, ws: {}}\naccess: [{listeners: [ws], action: deny}]\n"
    loaded = _load(tmp_path, text, LISTENER_WS_ENABLED="no")
    assert list(loaded.config.listeners) == ["tcp"]
    refuse_unusable(loaded.config)


def test_references_in_texts(tmp_path: Path) -> None:
    text = (
        "node_id: ${SITE:home}-${ROOM}\n"
        "listeners: {tcp: {bind: '127.0.0.1:${PORT:1883}', proxy_protocol: '${PROXY:on}'}}\n"
        "limits: {max_sessions: '${SESSIONS:5}'}\n"
        "audit: {file: '${AUDIT:}'}\n"
    )
    loaded = _load(tmp_path, text, ROOM="kitchen", PORT="1999")
    config = loaded.config
    assert config.node_id == "home-kitchen"
    assert str(config.listeners["tcp"].bind) == "127.0.0.1:1999"
    assert config.listeners["tcp"].proxy_protocol == "required"
    assert config.limits.max_sessions == 5
    assert config.audit.file is None
    assert loaded.origin(("node_id",)) == f"{tmp_path / 'broker.yaml'}:1 (${{SITE}}, ${{ROOM}})"


def test_what_a_variable_holds_is_not_expanded(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "node_id: ${A}\nlisteners: {tcp: {}}\n", A="${B}")
    assert loaded.config.node_id == "${B}"
