"""What the front does with a login before and after the gateway has carried it upstream."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from argon2 import PasswordHasher

from mqtt.peers import CLIENT, OTHER, WAIT, WELCOME, connack, connect, dial, log_in, running
from proxyproto_rs import Header
from proxyproto_rs.mqtt import BrokerConfig, ConfigError
from proxyproto_rs.mqtt.checking import check
from proxyproto_rs.mqtt.config import Loaded
from proxyproto_rs.mqtt.front.front import Front
from proxyproto_rs.mqtt.policy.password_table import PasswordTable

from .scripted_server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mqtt.peers import Broker
    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.login import Login


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def behind(server: Server, **options: Any) -> dict[str, Any]:
    return {"backend": {"upstream": {"servers": [server.address], **options}}, "amqtt": {}}


@pytest.fixture
def users(tmp_path: Path) -> str:
    file = tmp_path / "users.txt"
    file.write_text(f"own:{PasswordHasher(1, 8, 1).hash('secret')}\n")
    return str(file)


async def test_the_header_that_goes_upstream_names_the_client_and_the_session(server: Server) -> None:
    async with running(**behind(server)) as broker, log_in(broker.address()) as client:
        assert client.connack == WELCOME
        record = broker.service.sessions.record("dev")
        assert record is not None
        (header,) = server.headers
        assert header.source == CLIENT
        assert header.unique_id == record.session_id.encode()
        assert server.connects == [connect().encode()]


@pytest.mark.parametrize("forward", [True, False])
async def test_a_password_that_was_checked_here_goes_on_or_not(
    forward: bool, server: Server, users: str
) -> None:
    auth = {"auth": [{"file": users}], "forward_password": forward}
    how = connect(username="own", password=b"secret")
    async with running(**behind(server), **auth) as broker, log_in(broker.address(), how) as client:
        assert client.connack == WELCOME
    sent = how if forward else connect(username="own", password=None)
    assert server.connects == [sent.encode()]


async def test_a_server_that_decides_gets_the_password_all_the_same(server: Server, users: str) -> None:
    auth = {"auth": [{"file": users}, "upstream"], "forward_password": False}
    async with running(**behind(server), **auth) as broker, log_in(broker.address()) as client:
        assert client.connack == WELCOME
    assert server.connects == [connect().encode()]


async def test_a_certificate_that_is_the_login_replaces_the_user_name(server: Server, users: str) -> None:
    cn = b"\x22\0\x06sensor"
    ssl = b"\x07\0\0\0\0" + b"\x21\0\x07TLSv1.3" + cn
    header = Header.v2(CLIENT, ("198.51.100.1", 1883), tlvs=[(0x20, ssl)]).encode()
    sections = {"identity": {"source": "header"}, "auth": [{"file": users}]}
    async with running(**behind(server), **sections) as broker:
        async with dial(broker.address(), connect().encode(), header=header) as client:
            assert await client.packet() == WELCOME
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.username == "sensor"
        async with log_in(broker.address(), source=OTHER) as client:
            assert client.connack == connack(5)
        (row,) = await broker.rows()
        assert row.reason_code == "cert-required"
    assert server.connects == [connect(username="sensor").encode()]


async def test_a_proxy_that_looks_whether_we_are_there_leaves_no_row(server: Server) -> None:
    checks = [Header.local(), Header.v1(("127.0.0.1", 1), ("127.0.0.1", 2))]
    clients = [Header.v2(CLIENT, ("198.51.100.1", 1883))]
    async with running(**behind(server)) as broker:

        def has_come() -> bool:
            return bool(broker.service.front.numbers()["listeners"]["tcp"]["unauthenticated"] == 1)

        for header in (*checks, *clients):
            async with dial(broker.address(), header=header.encode()):
                await broker.until(has_come)
            await broker.until(lambda: not has_come())
        await broker.until(lambda: broker.service.metrics.connects["tcp", "closed-early"] == 3)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("closed-early", CLIENT[0])


async def test_a_server_that_answers_garbage_is_at_fault_and_not_the_client(server: Server) -> None:
    server.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    async with running(**behind(server)) as broker, log_in(broker.address()) as client:
        assert client.connack == connack(3)
        (row,) = await broker.rows()
        assert row.reason_code == "broker-error"
        assert not any(broker.service.blocked.count_by_type().values())


async def test_another_users_login_waits_until_the_first_with_its_id_is_known(server: Server) -> None:
    async with running(**behind(server)) as broker:
        first = connect("dev").encode()
        second = connect("dev", username="thief").encode()
        async with dial(broker.address(), first) as one, dial(broker.address(), second, source=OTHER) as two:
            answers = {await one.packet(), await two.packet()}
            assert answers == {WELCOME, connack(5)}
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == (
            "access-denied",
            "the session of this client id belongs to another user",
        )
    assert len(server.connects) == 1


@pytest.fixture
def all_have_come(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the front has been told of so many logins as `STORM` has."""
    told, come, event = Front._came, 0, asyncio.Event()

    def counted(front: Front, login: Any) -> None:
        nonlocal come
        told(front, login)
        come += login.connect.client_id.startswith("slow")
        if come == STORM:
            event.set()

    monkeypatch.setattr(Front, "_came", counted)
    return event


STORM = 20
"""Logins that wait for an answer: more than `limits.logins_at_once` has."""


@contextlib.asynccontextmanager
async def storm(broker: Broker, sources: list[Address]) -> AsyncIterator[None]:
    """While the block runs, `STORM` logins from these addresses wait to be checked."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(STORM):
            how = connect(f"slow-{number}", username="own", password=b"wrong").encode()
            await stack.enter_async_context(
                dial(broker.address(), how, source=sources[number % len(sources)])
            )
        yield


async def of_good_password(login: Login) -> bool:
    """Answer a good password at once, and keep others waiting."""
    if login.connect.password != b"secret":
        await asyncio.Event().wait()
    return True


@contextlib.asynccontextmanager
async def web_service() -> AsyncIterator[str]:
    """Answers as `of_good_password` does."""
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if (await request.json())["password"] != "secret":
            await ended.wait()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/auth", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/auth"
    finally:
        ended.set()
        await runner.cleanup()


@contextlib.contextmanager
def slow_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While the block runs, a wrong password takes that long to be checked against a file."""
    end, verify = threading.Event(), PasswordTable.verify

    def slowly(table: PasswordTable, username: str, password: str) -> bool:
        if password != "secret":
            assert end.wait(WAIT)
        return verify(table, username, password)

    monkeypatch.setattr(PasswordTable, "verify", slowly)
    try:
        yield
    finally:
        end.set()


PATIENT: dict[str, Any] = {"mqtt": {"auth_timeout": "1h"}, "auto_block": {"enabled": False}}
MANY: list[Address] = [(f"198.51.100.{number}", 40000) for number in range(1, STORM + 1)]


@pytest.mark.parametrize(
    ("kind", "sources"),
    [("plugin", [CLIENT]), ("http", [CLIENT]), ("http", MANY), ("file", [CLIENT]), ("file", MANY)],
    ids=["plugin", "http", "http-remembered", "file-one-address", "file-remembered"],
)
async def test_logins_that_take_long_keep_out_nobody_else(
    kind: str,
    sources: list[Address],
    server: Server,
    users: str,
    all_have_come: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        auth: dict[str, Any] = {"plugin": f"{__name__}:of_good_password"}
        if kind == "file":
            auth = {"file": users}
        elif kind == "http":
            auth = {"http": {"url": await stack.enter_async_context(web_service()), "timeout": "1h"}}
        broker = await stack.enter_async_context(running(**behind(server), auth=[auth], **PATIENT))
        how = connect(username="own", password=b"secret")
        if kind == "file" or sources is MANY:  # it is remembered
            async with log_in(broker.address(), how, source=OTHER) as client:
                assert client.connack == WELCOME
        stack.enter_context(slow_file(monkeypatch))
        async with storm(broker, sources):
            await asyncio.wait_for(all_have_come.wait(), WAIT)
            async with log_in(broker.address(), how, source=OTHER) as client:
                assert client.connack == WELCOME


async def test_a_reload_that_cannot_be_meant_changes_nothing(server: Server) -> None:
    async with running(**behind(server)) as broker:
        tree = broker.service.config.model_dump()
        tree["backend"]["upstream"]["servers"] = ["nowhere"]
        for listener in tree["listeners"].values():
            del listener["name"]
        with pytest.raises(ConfigError, match=r"backend\.upstream\.servers: a server is"):
            await broker.service.reload(Loaded(BrokerConfig.model_validate(tree), {}, ()))
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME


async def test_a_password_file_that_is_not_there_is_told_at_the_start_and_by_a_check(
    server: Server, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match=r"auth: .*nowhere\.txt: cannot be read"):
        async with running(**behind(server), auth=[{"file": missing}]):
            pass
    tree = {
        "listeners": {"tcp": {}},
        "store": "sqlite::memory:",
        "auth": [{"file": missing}],
        **behind(server),
    }
    with pytest.raises(ConfigError, match=r"auth\[0\]\.file: .*nowhere\.txt: cannot be read"):
        await check(BrokerConfig.model_validate(tree))


def test_a_front_of_servers_needs_no_amqtt() -> None:
    program = (
        "import sys; import proxyproto_rs.mqtt; from proxyproto_rs.mqtt import service, checking, collector;"
        "assert not [name for name in sys.modules if name.startswith('amqtt')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
