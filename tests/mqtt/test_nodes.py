"""Brokers that share a PostgreSQL show the sessions of all, and act on them wherever they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt import SessionQuery, StoreUnavailable

from . import postgres
from .brokers import running_mosquitto
from .front.scripted_server import Server
from .peers import CLIENT, OTHER, WELCOME, connect, log_in, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .peers import Broker


@contextlib.asynccontextmanager
async def three(database: str, **sections: Any) -> AsyncIterator[list[Broker]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(store=database, node_id=name, **sections))
            for name in ("a", "b", "c")
        ]


async def listed(broker: Broker, **query: Any) -> dict[str, tuple[str, bool]]:
    page = await broker.service.sessions.find(SessionQuery(**query))
    assert page.total_elements == len(page.data)
    return {found.client_id: (found.node_id, found.connected) for found in page.data}


async def until_listed(broker: Broker, wanted: dict[str, tuple[str, bool]]) -> None:
    async def same() -> bool:
        return await listed(broker) == wanted

    await until(same)


async def test_every_node_lists_all_sessions(database: str) -> None:
    async with three(database) as brokers, contextlib.AsyncExitStack() as stack:
        wanted = {}
        for broker in brokers:
            name = broker.service.node_id
            await stack.enter_async_context(log_in(broker.address(), connect(f"on-{name}")))
            wanted[f"on-{name}"] = (name, True)
        for broker in brokers:
            await until_listed(broker, wanted)
            assert await listed(broker, node_id_list=("b",)) == {"on-b": ("b", True)}
        view = await brokers[0].service.sessions.get("on-c")
        assert view is not None
        own = brokers[2].service.sessions.record("on-c")
        assert own is not None
        told, known = view.to_json(), own.to_json()
        changing = dict.fromkeys(("bytesIn", "bytesOut", "packetsIn", "packetsOut", "lastSeen"))
        assert {**told, **changing, "subscriptions": []} == {**known, **changing, "subscriptions": []}
        assert [(node.node_id, node.is_this) for node in await brokers[1].service.nodes()] == [
            ("a", False),
            ("b", True),
            ("c", False),
        ]


async def test_a_clean_session_leaves_the_list_and_a_kept_one_stays_in_it(database: str) -> None:
    async with three(database) as (a, b, _):
        async with (
            log_in(a.address(), connect("kept", clean_session=False)),
            log_in(a.address(), connect("clean")),
        ):
            await until_listed(b, {"kept": ("a", True), "clean": ("a", True)})
        await until_listed(b, {"kept": ("a", False)})


async def test_a_client_is_disconnected_from_another_node(database: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    async with (
        running(store=database, node_id="a", audit={"file": str(audit)}) as a,
        running(store=database, node_id="b") as b,
        log_in(a.address()) as client,
    ):
        await until_listed(b, {"dev": ("a", True)})
        assert not await b.service.sessions.disconnect("nobody")
        assert not await b.service.sessions.disconnect("dev", "another-session")
        assert await b.service.sessions.disconnect("dev", by="night shift")
        assert await client.end() == b""
        assert await listed(b) == {}
        assert not await b.service.sessions.disconnect("dev")
    assert '"session.disconnect"' in audit.read_text()
    assert "night shift" in audit.read_text()


async def test_a_kept_session_is_removed_from_another_node(database: str) -> None:
    async with three(database) as (a, b, _):
        async with log_in(a.address(), connect("kept", clean_session=False)):
            await until_listed(b, {"kept": ("a", True)})
            with pytest.raises(ValueError, match=r"client 'kept' is connected: disconnect it first"):
                await b.service.sessions.remove("kept")
        await until_listed(b, {"kept": ("a", False)})
        assert await b.service.sessions.remove("kept")
        assert await listed(b) == {}
        assert not await b.service.sessions.remove("kept")
        async with log_in(a.address(), connect("kept", clean_session=False)) as client:
            assert client.connack == WELCOME  # and not that its session is there


async def test_a_client_that_moves_is_taken_over(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async with three(database) as (a, b, c):
        kept = connect("dev", clean_session=False)
        async with log_in(a.address(), kept) as first, log_in(b.address(), kept, source=OTHER):
            assert await first.end() == b""
            await until_listed(c, {"dev": ("b", True)})
            await a.until(lambda: a.service.sessions.record("dev") is None)
            assert a.service.metrics.disconnects["tcp", "taken-over"] == 1
        await until_listed(c, {"dev": ("b", False)})


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "kept"])
async def test_a_client_that_moves_behind_one_server_is_taken_over(
    clean: bool, database: str, tmp_path: Path
) -> None:
    """The server closes the first session. Its node hears of the second, and does not say that the server did it."""
    how = connect(clean_session=clean)
    with running_mosquitto(tmp_path) as (host, port):
        upstream = {"servers": [f"{host}:{port}"], "proxy_protocol": "off"}
        behind = {"backend": {"upstream": upstream}, "amqtt": {}}
        async with (
            running(store=database, node_id="a", **behind) as a,
            running(store=database, node_id="b", **behind) as b,
            log_in(a.address(), how) as first,
        ):
            await until_listed(b, {"dev": ("a", True)})
            async with log_in(b.address(), how, source=OTHER) as second:
                assert second.connack[:1] == b"\x20"
                assert await first.end() == b""
                await a.until(lambda: a.service.metrics.disconnects)
                assert dict(a.service.metrics.disconnects) == {("tcp", "taken-over"): 1}
                await until_listed(a, {"dev": ("b", True)})


async def test_a_session_that_the_server_closes_is_told_as_such(database: str) -> None:
    server = Server()
    behind = {"backend": {"upstream": {"servers": [server.address]}}, "amqtt": {}}
    try:
        async with running(store=database, **behind) as broker, log_in(broker.address()) as client:
            server.close_sessions()
            assert await client.end() == b""
            await broker.until(lambda: broker.service.metrics.disconnects)
            assert dict(broker.service.metrics.disconnects) == {("tcp", "upstream-closed"): 1}
    finally:
        server.close()


async def test_what_was_missed_while_the_database_was_away_is_there_afterwards(
    database: str, postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.shared_sessions._CAPACITY", 3)
    async with (
        postgres.linked(postgres_server) as link,
        running(store=postgres_server.dsn(link.directory), node_id="a") as a,
        running(store=database, node_id="b") as b,
        log_in(a.address(), connect("before")) as before,
    ):
        await until_listed(b, {"before": ("a", True)})
        link.accepts = False
        link.cut()
        async with contextlib.AsyncExitStack() as stack:
            for number in range(5):
                await stack.enter_async_context(log_in(a.address(), connect(f"gone-{number}")))
        before.writer.close()
        await a.until(lambda: a.service.sessions.connected == 0)
        async with log_in(a.address(), connect("during")):
            with pytest.raises(StoreUnavailable):
                await a.service.sessions.find()
            link.accepts = True
            await until_listed(b, {"during": ("a", True)})
    assert a.service.sessions.connected == 0


async def test_the_busiest_addresses_are_those_of_all_nodes(database: str) -> None:
    async with (
        three(database) as (a, b, c),
        log_in(a.address()),
        log_in(b.address(), connect("other"), source=OTHER),
    ):
        for broker in (a, b):
            await broker.service._count_top()
            assert broker.service._nodes is not None
            await broker.service._nodes.beat(broker.service._counts())
        for by in ("connects", "sessions"):
            assert {entry.address for entry in await c.service.top(by)} == {CLIENT[0], OTHER[0]}
