"""`backend.upstream` and `auth`: how they are written, what is refused, and what the gateway is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.config import BrokerConfig, ConfigError, load
from proxyproto_rs.mqtt.config.gateway import gateway_options
from proxyproto_rs.mqtt.config.reload import needs_restart
from proxyproto_rs.mqtt.config.report import report

if TYPE_CHECKING:
    from pathlib import Path

    from proxyproto_rs.mqtt.config import Loaded

TCP = "listeners: {tcp: {}}\n"


def read(tmp_path: Path, text: str, *, allow_anonymous: bool = False) -> Loaded:
    file = tmp_path / "broker.yaml"
    file.write_text(TCP + text)
    return load(file, environ={}, allow_anonymous=allow_anonymous)


def said(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def test_what_people_write_becomes_the_gateways_options(tmp_path: Path) -> None:
    text = """
workers: 2
mqtt: {max_packet_size: 1MiB, send_timeout: 1m}
limits: {publish: "10:1,300:60"}
backend:
  upstream:
    servers: ["10.0.1.5:1883", "unix:/run/mosquitto.sock"]
    proxy_protocol: off
    versions: [3.1, 3.1.1, 5]
    check: {interval: 500ms, kind: mqtt, client_id: watch}
    max_connections: 1000
"""
    config = read(tmp_path, text).config
    assert config.backend.upstream is not None
    options = gateway_options(config.backend.upstream, config.mqtt, config.limits, config.workers)
    assert options["workers"] == 2
    servers = options["upstream"]
    assert servers["servers"] == ("10.0.1.5:1883", "unix:/run/mosquitto.sock")
    assert (servers["proxy_protocol"], servers["versions"]) == ("off", ("3.1", "3.1.1", "5"))
    assert servers["check"] == {"interval": 0.5, "fall": 3, "rise": 2, "kind": "mqtt", "client_id": "watch"}
    assert servers["max_connections"] == 1000
    clients = options["mqtt"]
    assert (clients["max_packet_size"], clients["send_timeout"]) == (1 << 20, 60)
    assert clients["publish"] == [(10, 1), (300, 60)]


SERVERS = 'backend: {upstream: {servers: ["a:1883"]}}\n'

BROKEN = [
    (
        "no-backend",
        "backend: {}\n",
        ["broker.yaml:2: backend: must name one backend: embedded, upstream or amqtt (got {})"],
    ),
    (
        "no-server",
        "backend: {upstream: {servers: []}}\n",
        ["broker.yaml:2: backend.upstream.servers: must not be empty"],
    ),
    (
        "server",
        'backend: {upstream: {servers: ["host"]}}\n',
        [
            'broker.yaml:2: backend.upstream.servers: a server is "host:port", "[IPv6 address]:port" or'
            ' "unix:/path", not "host"'
        ],
    ),
    (
        "twice",
        'backend: {upstream: {servers: ["a:1", "a:1"]}}\n',
        ["broker.yaml:2: backend.upstream.servers: a:1 stands there twice"],
    ),
    (
        "version",
        'backend: {upstream: {servers: ["a:1"], versions: [4]}}\n',
        ['broker.yaml:2: backend.upstream.versions[0]: must be 3.1, 3.1.1 or 5 (got "4")'],
    ),
    (
        "no-version",
        'backend: {upstream: {servers: ["a:1"], versions: []}}\n',
        ["broker.yaml:2: backend.upstream.versions: at least one is needed"],
    ),
    (
        "misspelt",
        'backend: {upstream: {server: ["a:1"]}}\n',
        [
            "broker.yaml:2: backend.upstream.servers: is required",
            'broker.yaml:2: backend.upstream.server: unknown key (did you mean "servers"?)',
        ],
    ),
    (
        "tls",
        'backend: {upstream: {servers: ["a:1"], tls: {cafile: ca.pem}}}\n',
        ["broker.yaml:2: backend.upstream.tls.cafile: ca.pem: No such file or directory"],
    ),
    (
        "amqtt",
        SERVERS + "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n",
        ["broker.yaml:3: amqtt: is not used with backend.upstream: keep one of the two"],
    ),
    (
        "plugin",
        SERVERS + 'auth: [{plugin: "nowhere.at:all"}]\n',
        ["broker.yaml:3: auth[0].plugin: cannot be imported: No module named 'nowhere'"],
    ),
    (
        "not-callable",
        SERVERS + 'auth: [{plugin: "os:name"}]\n',
        ["broker.yaml:3: auth[0].plugin: os:name is not callable"],
    ),
    (
        "two-in-one",
        SERVERS + 'auth: [{file: a, plugin: "os:getpid"}]\n',
        [
            "broker.yaml:3: auth[0]: must be one of upstream, anonymous, file:, http:, plugin:"
            ' (got {"file": "a", "plugin": "os:getpid"})'
        ],
    ),
    (
        "auth-with-amqtt",
        "auth: [anonymous]\namqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n",
        [
            "broker.yaml:2: auth: needs backend.embedded or backend.upstream: amqtt's plugins stand under"
            " amqtt.plugins"
        ],
    ),
]


@pytest.mark.parametrize(("text", "lines"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_refused_with_the_line(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert sorted(said(tmp_path, text)) == sorted(lines)


def test_what_one_backend_has_and_the_other_not_is_refused_by_name(tmp_path: Path) -> None:
    from proxyproto_rs.mqtt.config.broker import refuse_unusable

    pair = {"certfile": "c", "keyfile": "k"}

    def refused(tls: dict[str, Any], **sections: Any) -> str:
        tree = {"listeners": {"ssl": {"bind": ":1", "tls": {**pair, **tls}}}, **sections}
        with pytest.raises(ConfigError) as wrong:
            refuse_unusable(BrokerConfig.model_validate(tree))
        return str(wrong.value)

    upstream = {"backend": {"upstream": {"servers": ["a:1"]}}}
    amqtt: dict[str, Any] = {"amqtt": {"plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}}}}
    for key in ("key_password", "key_password_file"):
        said = refused({key: "x"}, **upstream)
        assert f"listeners.ssl.tls.{key}: cannot be used with backend.upstream" in said
    for key, value in (("crlfile", "x"), ("certificates", [pair])):
        said = refused({key: value, "key_password": "x"}, **amqtt)
        assert f"listeners.ssl.tls.{key}: cannot be used with a key that has a password" in said


def test_auth_is_a_word_or_a_list_and_is_shown_as_written(tmp_path: Path) -> None:
    assert [source.upstream for source in read(tmp_path, SERVERS + "auth: upstream\n").config.auth] == [True]
    loaded = read(
        tmp_path,
        SERVERS + 'auth: [{file: users.txt}, {http: {url: "http://127.0.0.1/"}}, anonymous]\n',
    )
    shown = report(loaded)
    assert 'auth[0].file: "users.txt"  #' in shown
    assert 'auth[1].http.timeout: "3s"  #' in shown
    assert 'auth[2]: "anonymous"  #' in shown
    assert "forward_password: true  # default" in shown


def test_allow_anonymous_changes_nothing_where_servers_decide(tmp_path: Path) -> None:
    loaded = read(tmp_path, SERVERS, allow_anonymous=True)
    assert loaded.config.amqtt.plugins == {}
    assert loaded.warnings == ("--allow-anonymous changes nothing: the servers of backend.upstream decide",)


def test_servers_may_change_while_it_runs_and_the_kind_of_backend_may_not(tmp_path: Path) -> None:
    old = read(tmp_path, SERVERS).config
    other = read(tmp_path, 'backend: {upstream: {servers: ["b:1883"], balance: client-id}}\n').config
    assert list(needs_restart(old, other)) == []
    amqtt = read(
        tmp_path, "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n"
    ).config
    assert [path for path, _ in needs_restart(old, amqtt)] == [("amqtt",), ("backend",)]
    auth = read(tmp_path, SERVERS + "auth: [anonymous]\n").config
    assert [path for path, _ in needs_restart(old, auth)] == [("auth",)]
