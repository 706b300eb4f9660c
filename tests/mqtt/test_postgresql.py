"""Brokers that share a PostgreSQL: what one refuses, all refuse; and a database that is away holds no login up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt import BlockedClient, StoreUnavailable

from . import postgres
from .peers import CLIENT, OTHER, WELCOME, connack, connect, dial, log_in, running

if TYPE_CHECKING:
    from .peers import Broker


async def test_a_block_on_one_node_ends_sessions_and_refuses_on_the_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only what the database tells may bring the block: the poll comes too late.
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.blocks.blocked._POLL_SECONDS", 600.0)
    async with running(store=database) as a, running(store=database) as b, running(store=database) as c:
        async with (
            log_in(b.address(), connect("on-b")) as on_b,
            log_in(c.address(), connect("on-c"), source=OTHER) as on_c,
        ):
            assert on_b.connack == on_c.connack == WELCOME
            await a.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=CLIENT[0]))
            await a.service.blocked.add(BlockedClient(type="CLIENT_ID", value="on-c"))
            assert await on_b.end() == await on_c.end() == b""
        for broker in (b, c):
            async with dial(broker.address()) as client:
                assert await client.end() == b"", "before one byte is read"
            async with dial(broker.address(), connect("on-c").encode(), source=OTHER) as client:
                assert await client.end() == connack(5)
            async with log_in(broker.address(), connect("other"), source=OTHER) as client:
                assert client.connack == WELCOME


async def test_wrong_logins_on_several_nodes_ban_once(database: str) -> None:
    banning = {"enabled": True, "max_failures": 5, "window": 60, "block_for": 600}
    async with (
        running(store=database, auto_block=banning) as a,
        running(store=database, auto_block=banning) as b,
        running(store=database, auto_block=banning) as c,
    ):
        for broker in (a, b, c, a, b):
            assert broker.service.blocked.match_address(OTHER[0]) is None
            async with dial(broker.address(), connect(password=b"wrong").encode(), source=OTHER) as client:
                assert await client.end() == connack(5)
        for broker in (a, b, c):
            await broker.until(
                lambda broker=broker: broker.service.blocked.match_address(OTHER[0]) is not None
            )
            block = broker.service.blocked.match_address(OTHER[0])
            assert block is not None
            assert (block.strikes, block.description) == (1, "5 failed logins in 60 s, ban 1")
        async with dial(c.address(), source=OTHER) as client:
            assert await client.end() == b""


async def test_a_database_that_is_away_holds_no_login_up(
    database: str, postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    block = BlockedClient(type="CLIENT_ID", value="unwanted")
    async with (
        postgres.linked(postgres_server) as link,
        running(store=postgres_server.dsn(link.directory)) as broker,
    ):
        await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="known"))
        link.accepts = False
        link.cut()
        for number in range(20):
            async with log_in(broker.address(), connect(f"good-{number}")) as client:
                assert client.connack == WELCOME
            await refused(broker, f"bad-{number}")
        with pytest.raises(StoreUnavailable):
            await broker.service.blocked.add(block)
        async with log_in(broker.address(), connect("unwanted")) as client:
            assert client.connack == WELCOME
        async with dial(broker.address(), connect("known").encode()) as client:
            assert await client.end() == connack(5)
        await broker.service.unauthorized.flush()
        link.accepts = True
        await broker.service.blocked.add(block)
        rows = await broker.rows(21)
        assert {row.client_id: row.attempts for row in rows} == {
            "known": 1,
            **{f"bad-{number}": 1 for number in range(20)},
        }
        assert broker.service.unauthorized.dropped == 0
    said = [record.getMessage() for record in caplog.records]
    assert (
        len([line for line in said if line.startswith("unauthorized clients wait to be recorded: store ")])
        == 1
    )
    assert "unauthorized clients are recorded again" in said


async def refused(broker: Broker, client_id: str) -> None:
    wrong = connect(client_id, password=b"wrong")
    async with dial(broker.address(), wrong.encode()) as client:
        assert (await client.end())[:1] == b"\x20"
