"""Who may ask: tokens, hosts, TLS, and what happens to those who guess."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from mqtt import plugins
from mqtt.peers import WAIT, running
from proxyproto_rs import Header, open_connection
from proxyproto_rs.mqtt import BrokerConfig, BrokerService, ConfigError
from proxyproto_rs.mqtt.checking import check
from proxyproto_rs.mqtt.config import Loaded
from proxyproto_rs.mqtt.http import server
from proxyproto_rs.mqtt.http.tokens import Tokens, WrongTokens

from .asking import READ_TOKEN, TOKEN, serving

if TYPE_CHECKING:
    from pathlib import Path

    from interop.certificates import Certificates


async def test_tokens_and_what_they_allow() -> None:
    async with serving() as (_, api):
        missing = await api.ask("GET", "/api/overview", token=None)
        assert (missing.status, missing.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await api.ask("GET", "/api/overview", token="wrong")).status == 401
        assert (await api.ask("GET", "/api/overview", token=READ_TOKEN)).status == 200
        as_tbmq = {"X-Authorization": f"Bearer {TOKEN}"}
        assert (await api.ask("GET", "/api/overview", token=None, headers=as_tbmq)).status == 200
        body = {"type": "CLIENT_ID", "clientId": "x"}
        assert "only read" in await api.fails(403, "POST", "/api/blockedClient", token=READ_TOKEN, json=body)
        assert (await api.ask("POST", "/api/blockedClient", json=body)).status == 200


async def test_wrong_tokens_are_audited_and_limited(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with serving(audit={"file": str(audit)}) as (_, api):
        for _ in range(10):
            await api.fails(401, "GET", "/api/overview", token="guess")
        limited = await api.ask("GET", "/api/overview", token="guess")
        assert limited.status == 429
        assert 0 < int(limited.headers["Retry-After"]) <= 60
        assert (await api.ask("GET", "/healthz", token=None)).status == 200
    denied = [json.loads(line) for line in audit.read_text().splitlines() if "api.denied" in line]
    assert len(denied) == 10, "those that are not looked at are not written down"
    assert {(line["reason"], line["by"], line["path"]) for line in denied} == {
        ("wrong-token", "api@127.0.0.1", "/api/overview")
    }
    assert denied[0]["client"]["ip"] == "127.0.0.1"
    assert "guess" not in audit.read_text()


def test_the_limit_is_for_each_address_and_ends_after_a_minute() -> None:
    wrong = WrongTokens()
    for second in range(10):
        assert wrong.wait("2001:db8::1", second) == 0
        wrong.add("2001:db8::1", second)
    assert wrong.wait("2001:db8::2", 10) == 50, "the same /64 is the same client"
    assert wrong.wait("192.0.2.1", 10) == 0
    assert wrong.wait("2001:db8::1", 60) == 0
    for number in range(2000):
        wrong.add(f"192.0.{number // 256}.{number % 256}", 10)
    assert wrong.wait("2001:db8::1", 10) == 0, "it remembers 1000 addresses"


def test_any_text_may_be_compared() -> None:
    tokens = Tokens("right", "look")
    assert [tokens.access_of(token) for token in ("right", "look", "", "é\udc80", "righ")] == [
        "write",
        "read",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "192.0.2.1", "127.0.0.1.evil.example", ""]
)
async def test_a_host_that_was_let_point_here_is_refused(host: str) -> None:
    async with serving() as (_, api):
        await api.fails(421, "GET", "/api/overview", headers={"Host": host})
        await api.fails(421, "GET", "/healthz", headers={"Host": host})


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8083", "127.0.0.1", "[::1]:9", "broker.example"])
async def test_a_host_of_ours_is_answered(host: str) -> None:
    async with serving({"hosts": ["broker.example"]}) as (_, api):
        assert (await api.ask("GET", "/api/overview", headers={"Host": host})).status == 200


async def test_a_token_is_generated_beside_the_store(tmp_path: Path) -> None:
    http = {"bind": "127.0.0.1:0", "token": None, "read_token": None}
    file = tmp_path / "http-token"
    for _ in range(2):  # it stays the same
        async with serving(http, store=f"sqlite:{tmp_path}/broker.db") as (_, api):
            token = file.read_text().strip()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert (await api.ask("GET", "/api/overview", token=token)).status == 200
            await api.fails(401, "GET", "/api/overview", token=TOKEN)


async def test_a_token_may_stand_in_a_file_and_is_read_again_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    http = {"bind": "127.0.0.1:0", "token": None, "token_file": str(file), "read_token": None}
    async with serving(http) as (broker, api):
        assert (await api.ask("GET", "/api/overview", token="first")).status == 200
        file.write_text("second\n")
        await broker.service.reload(Loaded(broker.service.config, {}, ()))
        assert (await api.ask("GET", "/api/overview", token="first")).status == 401
        assert (await api.ask("GET", "/api/overview", token="second")).status == 200
        file.write_text("two words")
        with pytest.raises(ConfigError, match=r"http\.token_file: .*must hold one token"):
            await broker.service.reload(Loaded(broker.service.config, {}, ()))
        assert (await api.ask("GET", "/api/overview", token="second")).status == 200


def config(**http: Any) -> BrokerConfig:
    tree = {"listeners": {"tcp": {"bind": "127.0.0.1:0"}}, "store": "sqlite::memory:", "http": http}
    return BrokerConfig.model_validate({**tree, "amqtt": {"plugins": dict(plugins.ALL)}})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bind": "0.0.0.0:0"}, "http.tls: must be set to serve 0.0.0.0:0, which is not loopback"),
    ({"bind": ":0"}, "http.tls: must be set"),
    ({"token": "x", "token_file": "y"}, "http.token_file: stands beside token"),
    ({"token": "two words"}, "http.token: must be printable ASCII"),
    ({"read_token": ""}, "http.read_token: must be printable ASCII"),
    ({"token_file": "/none/such"}, "http.token_file: /none/such: cannot be read"),
    ({"tls": {}}, "http.tls.certfile: must be set"),
    ({"tls": {"certfile": "/none", "keyfile": "/none"}}, "http.tls.certfile: /none: no such file"),
    ({"proxy_protocol": "optional"}, "proxy.trusted: must be set with http.proxy_protocol: optional"),
]


@pytest.mark.parametrize(("http", "said"), REFUSED, ids=[said for _, said in REFUSED])
async def test_what_keeps_it_from_starting(http: dict[str, Any], said: str) -> None:
    token = {} if "token_file" in http else {"token": "t"}
    with pytest.raises(ConfigError) as refused:
        await BrokerService(config(**{"bind": "127.0.0.1:0", **token, **http})).start()
    assert str(refused.value).startswith(said)


async def test_a_port_in_use_is_named() -> None:
    async with serving() as (broker, _):
        assert broker.service.http is not None
        port = broker.service.http.url.rsplit(":", 1)[1].rstrip("/")
        with pytest.raises(OSError, match=rf"http\.bind: 127\.0\.0\.1:{port}: "):
            await BrokerService(config(bind=f"127.0.0.1:{port}", token="t")).start()


async def test_tls(certificates: Certificates) -> None:
    tls = {"certfile": str(certificates.server), "keyfile": str(certificates.server)}
    async with serving({"bind": "0.0.0.0:0", "tls": tls}) as (broker, api):
        assert api.url.startswith("https://0.0.0.0:")
        api.url = api.url.replace("0.0.0.0", "127.0.0.1")
        assert (await api.ask("GET", "/api/overview")).status == 200
        await broker.service.reload(Loaded(broker.service.config, {}, ()))
        assert (await api.ask("GET", "/api/overview")).status == 200


async def test_behind_a_proxy_the_operators_own_address_is_seen(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    http = {"bind": "127.0.0.1:0", "token": TOKEN, "proxy_protocol": "required"}
    async with running(http=http, audit={"file": str(audit)}) as broker:
        assert broker.service.http is not None
        assert broker.service.http.listener is not None
        address = broker.service.http.listener.getsockname()
        header = Header.v2(("203.0.113.50", 4711), ("192.0.2.80", 8083))
        reader, writer = await open_connection(*address, header=header)
        writer.write(
            b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nConnection: close\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 401")
        writer.close()
        await writer.wait_closed()
    (denied,) = [json.loads(line) for line in audit.read_text().splitlines() if "api.denied" in line]
    assert (denied["client"], denied["by"]) == ({"ip": "203.0.113.50", "port": 4711}, "api@203.0.113.50")


async def test_a_request_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE", 0.1)
    async with serving() as (_, api):
        host, port = api.url.removeprefix("http://").rstrip("/").split(":")
        for sent in (
            b"",
            b"GET /healthz HTTP/1.1\r\nHost: local",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), WAIT) == b""
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    "head", ["X: " + "x" * 20_000, "\r\n".join(f"X{number}: y" for number in range(1000))]
)
async def test_a_head_that_is_too_large_is_refused(head: str) -> None:
    async with serving() as (_, api):
        host, port = api.url.removeprefix("http://").rstrip("/").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        status = (await asyncio.wait_for(reader.read(100), WAIT)).split()[1]
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert status in (b"400", b"431")
        assert (await api.ask("GET", "/healthz")).status == 200


async def test_a_check_looks_at_the_certificate_and_the_tokens_file(tmp_path: Path) -> None:
    tls = {"certfile": "/none.pem", "keyfile": "/none.key"}
    with pytest.raises(ConfigError, match=r"^http\.tls\.certfile: /none\.pem: no such file$"):
        await check(config(bind="127.0.0.1:0", tls=tls))
    with pytest.raises(ConfigError, match=r"^http\.token_file: /none: cannot be read"):
        await check(config(bind="127.0.0.1:0", token_file="/none"))
    tree = config(bind="127.0.0.1:0").model_copy(update={"store": f"sqlite:{tmp_path}/broker.db"})
    await check(tree)
    assert os.listdir(tmp_path) == [], "it makes no token"
