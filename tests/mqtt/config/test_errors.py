"""Broken files and the exact lines that an operator gets: file, line, key, what it must be, what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.config import BrokerConfig, ConfigError, load
from proxyproto_rs.mqtt.config.broker import refuse_unusable

if TYPE_CHECKING:
    from pathlib import Path

ANONYMOUS = "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n"

# What is wrong, the file, and all that is said. A file without an `amqtt` section gets a usable one.
BROKEN = [
    (
        "duration",
        "listeners:\n  tcp:\n    bind: 1883\n    proxy:\n      header_timeout: -1\n",
        ["broker.yaml:5: listeners.tcp.proxy.header_timeout: must be greater than 0 (got -1)"],
    ),
    (
        "duration-unit",
        "listeners: {tcp: {}}\nunauthorized:\n  ttl: 3w\n",
        [
            "broker.yaml:3: unauthorized.ttl: must be a duration: seconds, or a number with ms, s, m, h or d"
            ' (5s, 10m, 24h, 3d) (got "3w")'
        ],
    ),
    (
        "nearest-name",
        "listeners: {tcp: {}}\nlimits:\n  max_session: 5\n",
        ['broker.yaml:3: limits.max_session: unknown key (did you mean "max_sessions"?)'],
    ),
    (
        "nearest-name-with-dashes",
        "listeners: {tcp: {}}\nauto-block: {}\n",
        ['broker.yaml:2: auto-block: unknown key (did you mean "auto_block"?)'],
    ),
    (
        "nearest-name-in-a-listener",
        "listeners:\n  tcp:\n    prox: {}\n",
        ['broker.yaml:3: listeners.tcp.prox: unknown key (did you mean "proxy"?)'],
    ),
    (
        "no-name-near",
        "listeners: {tcp: {}}\nzebra: 1\n",
        ["broker.yaml:2: zebra: unknown key"],
    ),
    (
        "repeated-key",
        "listeners:\n  tcp: {bind: 1883}\n  ws: {}\n  tcp: {bind: 1884}\n",
        ["broker.yaml:4: listeners.tcp: repeated key (first at line 2)"],
    ),
    (
        "host-bits",
        "proxy:\n  trusted: [127.0.0.1, 10.0.0.1/8]\nlisteners: {tcp: {}, ws: {}}\n",
        [
            'broker.yaml:2: proxy.trusted: "10.0.0.1/8" has host bits set: write 10.0.0.0/8 or the address alone'
        ],
    ),
    (
        "no-network",
        "listeners:\n  tcp:\n    proxy: {deny: [nonsense]}\n",
        [
            'broker.yaml:3: listeners.tcp.proxy.deny: "nonsense" must be an IP address or a network'
            " such as 10.0.0.0/8"
        ],
    ),
    (
        "choice",
        "listeners: {tcp: {proxy_protocol: maybe}}\n",
        ['broker.yaml:1: listeners.tcp.proxy_protocol: must be required, optional or off (got "maybe")'],
    ),
    (
        "boolean-for-a-number",
        "listeners: {tcp: {}}\nlimits: {logins_at_once: on}\n",
        ["broker.yaml:2: limits.logins_at_once: must be a whole number (got true)"],
    ),
    (
        "no-listeners",
        "listeners: {}\n",
        ["broker.yaml:1: listeners: must not be empty"],
    ),
    (
        "listeners-missing",
        "node_id: a\n",
        ["broker.yaml: listeners: is required"],
    ),
    (
        "section-is-a-list",
        "listeners: {tcp: {}}\nmqtt: [1]\n",
        ["broker.yaml:2: mqtt: must be a mapping of keys to values (got [1])"],
    ),
    (
        "listener-without-type",
        "listeners:\n  internal: {bind: 1884}\n",
        ["broker.yaml:2: listeners.internal.type: is required"],
    ),
    (
        "listener-without-bind",
        "listeners:\n  internal: {type: tcp}\n",
        ["broker.yaml:2: listeners.internal.bind: is required"],
    ),
    (
        "bind",
        'listeners:\n  tcp: {bind: "localhost"}\n',
        [
            'broker.yaml:2: listeners.tcp.bind: must be "host:port", ":port", "[IPv6]:port" or a port'
            ' (got "localhost")'
        ],
    ),
    (
        "port-too-large",
        'listeners:\n  tcp: {bind: ":70000"}\n',
        ['broker.yaml:2: listeners.tcp.bind: has a port above 65535 (got ":70000")'],
    ),
    (
        "unquoted-ipv6",
        "listeners:\n  tcp:\n    bind: [::1]:1883\n",
        [
            "broker.yaml:3: is not valid YAML: expected the node content, but found ':'"
            ' (an IPv6 address needs quotes: "[::]:1883")'
        ],
    ),
    (
        "not-a-mapping",
        "- amqtt\n",
        ["broker.yaml:1: must be a mapping of keys to values"],
    ),
    (
        "tab",
        "listeners:\n\ttcp: {}\n",
        ["broker.yaml:2: is not valid YAML: found character '\\t' that cannot start any token"],
    ),
    (
        "contains-itself",
        "listeners: &all\n  tcp: *all\n",
        ["broker.yaml:1: listeners.tcp: contains itself"],
    ),
    (
        "unset-variable",
        "node_id: ${NOT_SET_ANYWHERE}\nlisteners: {tcp: {}}\n",
        [
            "broker.yaml:1: node_id: the variable NOT_SET_ANYWHERE is not set, and ${NOT_SET_ANYWHERE} gives no default"
        ],
    ),
    (
        "listeners-under-amqtt",
        "listeners: {tcp: {}}\namqtt:\n  listeners: {default: {}}\n  plugins: {proxyproto_rs.mqtt.PasswordFile: {}}\n",
        [
            "broker.yaml:3: amqtt.listeners: belongs at the top of the file, not under amqtt:"
            " our listeners read the PROXY header"
        ],
    ),
    (
        "both-names-of-one-key",
        "listeners:\n  tcp:\n    proxy_protocol: on\n    proxy_enabled: on\n",
        [
            "broker.yaml:4: listeners.tcp.proxy_enabled: stands beside proxy_protocol, which says the same: keep one"
        ],
    ),
    (
        "name-in-a-listener",
        "listeners:\n  tcp:\n    name: other\n",
        ["broker.yaml:3: listeners.tcp.name: unknown key: a listener's name is the key it stands under"],
    ),
    (
        "rule-without-action",
        "listeners: {tcp: {}}\naccess:\n  - {users: [admin], action: allow}\n  - users: [guest]\n",
        ["broker.yaml:4: access[1].action: is required"],
    ),
    (
        "rates",
        'listeners: {tcp: {}}\nlimits: {publish: "10/s"}\n',
        [
            'broker.yaml:2: limits.publish: must be rates such as "10:1,300:60" (10 in 1 s and 300 in 60 s) (got "10/s")'
        ],
    ),
    (
        "pattern",
        "listeners: {tcp: {}}\nidentity: {allow_pattern: '(?=a)'}\n",
        [
            "broker.yaml:2: identity.allow_pattern: is not a pattern RE2 can match:"
            ' invalid perl operator: (?= (got "(?=a)")'
        ],
    ),
    (
        "store",
        "listeners: {tcp: {}}\nstore: postgres://x\n",
        [
            "broker.yaml:2: store: must be sqlite:PATH, sqlite::memory: or postgresql://USER@HOST/DATABASE"
            ' (got "postgres://x")'
        ],
    ),
    (
        "a-password-that-is-not-encoded-is-not-shown",
        "listeners: {tcp: {}}\nstore: postgresql://u:hunter/2@h/d?password=hunter3\n",
        [
            "broker.yaml:2: store: must have its user and password percent-encoded"
            ' (got "postgresql://***@h/d?password=***")'
        ],
    ),
    (
        "store-and-store-file",
        "listeners: {tcp: {}}\nstore: sqlite:a.db\nstore_file: b\n",
        ['broker.yaml:3: store_file: must be left out beside store: keep one of the two (got "b")'],
    ),
    (
        "secret-is-not-shown",
        "listeners: {ssl: {tls: {certfile: c, keyfile: k, key_password: [hunter2]}}}\n",
        ["broker.yaml:1: listeners.ssl.tls.key_password: must be text (got ***)"],
    ),
    # settings that would let everybody in, or nobody
    (
        "no-auth-plugin",
        "listeners: {tcp: {}}\namqtt:\n  plugins: {}\n",
        [
            "broker.yaml:3: amqtt.plugins: holds no auth plugin: list one, such as proxyproto_rs.mqtt.PasswordFile, or"
            " amqtt.plugins.authentication.AnonymousAuthPlugin to let everybody in"
        ],
    ),
    (
        "no-amqtt-section",
        "listeners: {tcp: {}}\nbackend: amqtt\n",
        [
            "broker.yaml: amqtt.plugins: holds no auth plugin: list one, such as proxyproto_rs.mqtt.PasswordFile, or"
            " amqtt.plugins.authentication.AnonymousAuthPlugin to let everybody in"
        ],
    ),
    (
        "no-backend",
        "listeners: {tcp: {}}\n# neither a backend nor amqtt\n",
        [
            "broker.yaml: auth: must say who knows the passwords, as the embedded broker knows none: file, http or"
            " plugin; or anonymous, to let in whoever gives no user name"
        ],
    ),
    (
        "plugin-does-not-exist",
        "listeners: {tcp: {}}\namqtt:\n  plugins:\n    no.such.Plugin: {}\n",
        ["broker.yaml:4: amqtt.plugins.no.such.Plugin: cannot be imported: No module named 'no'"],
    ),
    (
        "optional-without-trusted",
        "listeners:\n  tcp:\n    proxy_protocol: optional\n",
        [
            "broker.yaml:2: listeners.tcp.proxy.trusted: must be set with proxy_protocol: optional;"
            " otherwise anybody can claim to be anybody"
        ],
    ),
    (
        "identity-from-anybody",
        "proxy_protocol: required\nidentity: {source: header}\nlisteners: {tcp: {}}\n",
        [
            "broker.yaml:3: listeners.tcp.proxy.trusted: must be set with identity.source: header;"
            " otherwise anybody can send a certificate's name"
        ],
    ),
    (
        "identity-from-no-header",
        "listeners:\n  tcp: {identity: {source: header}}\n",
        ["broker.yaml:2: listeners.tcp.identity.source: header needs proxy_protocol: no header is read here"],
    ),
    (
        "identity-without-tls",
        "listeners:\n  tcp: {identity: {source: tls}}\n",
        ["broker.yaml:2: listeners.tcp.identity.source: tls needs TLS at the listener, and this one is tcp"],
    ),
    (
        "identity-without-a-certificate",
        "listeners:\n  ssl: {identity: {source: tls}, tls: {certfile: c, keyfile: k}}\n",
        [
            "broker.yaml:2: listeners.ssl.identity.source: tls needs tls.client_certificate: optional or required;"
            " otherwise no client is asked for a certificate"
        ],
    ),
    (
        "tls-missing",
        "listeners:\n  ssl: {}\n",
        [
            "broker.yaml:2: listeners.ssl.tls: has no certfile, here or in tls_defaults, and a ssl listener needs one"
        ],
    ),
    (
        "keyfile-missing",
        "listeners:\n  wss:\n    tls: {certfile: c}\n",
        [
            "broker.yaml:3: listeners.wss.tls: has no keyfile, here or in tls_defaults, and a wss listener needs one"
        ],
    ),
    (
        "cafile-missing",
        "tls_defaults: {certfile: c, keyfile: k, client_certificate: required}\nlisteners: {ssl: {}}\n",
        [
            "broker.yaml:2: listeners.ssl.tls.cafile: must be set with client_certificate: required;"
            " otherwise no certificate can be verified"
        ],
    ),
    (
        "tls-on-tcp",
        "listeners:\n  tcp:\n    tls: {certfile: c}\n",
        ["broker.yaml:3: listeners.tcp.tls: belongs to ssl and wss listeners, and this one is tcp"],
    ),
    (
        "ws-on-ssl",
        "listeners:\n  ssl:\n    ws: {path: /mqtt}\n    tls: {certfile: c, keyfile: k}\n",
        ["broker.yaml:3: listeners.ssl.ws: belongs to ws and wss listeners, and this one is ssl"],
    ),
    (
        "two-sources-of-truth",
        "listeners:\n  ws:\n    proxy_protocol: required\n    ws: {forwarded: {trusted: [127.0.0.1]}}\n",
        [
            "broker.yaml:4: listeners.ws.ws.forwarded: cannot be combined with proxy_protocol:"
            " only one of the two may name the client"
        ],
    ),
    (
        "one-port-twice",
        'listeners:\n  tcp: {bind: "127.0.0.1:1883"}\n  other: {type: tcp, bind: "127.0.0.1:1883"}\n',
        ["broker.yaml:3: listeners.other.bind: 127.0.0.1:1883 is listeners.tcp.bind already"],
    ),
    (
        "one-socket-of-systemds-twice",
        'listeners:\n  tcp: {bind: "systemd:a"}\n  other: {type: tcp, bind: "systemd:a"}\n',
        ["broker.yaml:3: listeners.other.bind: systemd:a is listeners.tcp.bind already"],
    ),
    (
        "a-path-without-a-slash",
        "listeners: {ws: {ws: {path: mqtt}}}\n",
        ['broker.yaml:1: listeners.ws.ws.path: must start with a slash (got "mqtt")'],
    ),
    (
        "a-rule-for-no-listener",
        "listeners: {tcp: {}, internal: {type: tcp, bind: 1884}}\n"
        "access:\n"
        "  - {listeners: [tcp, int*], action: allow}\n"
        "  - {listeners: [internal,\n"
        "                 tpc], action: deny}\n"
        "  - {listeners: [], action: deny}\n",
        [
            'broker.yaml:5: access[1].listeners[1]: names no listener (got "tpc"; there are internal, tcp)',
            "broker.yaml:6: access[2].listeners: names no listener (there are internal, tcp)",
        ],
    ),
    (
        "a-rule-for-a-broken-listener",
        "listeners: {tcp: {bind: x}}\naccess:\n  - {listeners: [tcp], action: allow}\n",
        [
            'broker.yaml:1: listeners.tcp.bind: must be "host:port", ":port", "[IPv6]:port" or a port (got "x")'
        ],
    ),
    # everything at once
    (
        "all-at-once",
        "proxy: {header_timeout: 0}\n"
        "listeners:\n"
        "  tcp: {bind: x}\n"
        "  ws: {proxy_protocol: optional}\n"
        "limits: {max_sessions: -1}\n"
        "amqtt: {plugins: {}}\n",
        [
            "broker.yaml:1: proxy.header_timeout: must be greater than 0 (got 0)",
            'broker.yaml:3: listeners.tcp.bind: must be "host:port", ":port", "[IPv6]:port" or a port (got "x")',
            "broker.yaml:5: limits.max_sessions: must be at least 0 (got -1)",
            "broker.yaml:6: amqtt.plugins: holds no auth plugin: list one, such as proxyproto_rs.mqtt.PasswordFile, or"
            " amqtt.plugins.authentication.AnonymousAuthPlugin to let everybody in",
        ],
    ),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_told_in_full(
    text: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "amqtt" not in text:
        text += ANONYMOUS
    (tmp_path / "broker.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load("broker.yaml", environ={})
    assert str(caught.value).splitlines() == said


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^broker\.yaml: cannot be read: No such file or directory$"):
        BrokerConfig.load("broker.yaml", environ={})


def test_a_file_that_is_not_utf_8_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broker.yaml").write_bytes(b"node_id: \xff\n")
    with pytest.raises(ConfigError, match=r"^broker\.yaml: is not UTF-8 text \(byte 9\)$"):
        BrokerConfig.load("broker.yaml", environ={})


def test_keywords_are_held_to_the_same_rules_as_a_file() -> None:
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": 0, "proxy_protocol": "optional"}},
            "backend": "amqtt",
            "access": [{"listeners": ["ssl"], "action": "deny"}],
        }
    )
    with pytest.raises(ConfigError) as caught:
        refuse_unusable(config)
    assert [problem.path for problem in caught.value.problems] == [
        ("listeners", "tcp", "proxy", "trusted"),
        ("amqtt", "plugins"),
        ("access", 0, "listeners", 0),
    ]
