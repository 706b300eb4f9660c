"""Three brokers that share a PostgreSQL act as one: blocks, bans, owners of client ids, and what operators see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from typing import TYPE_CHECKING, Any

from proxyproto_rs.mqtt import BlockedClient, BlockQuery

from . import postgres
from .front.scripted_server import Server
from .http.asking import serving
from .peers import OTHER, WELCOME, connack, connect, dial, log_in, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from .http.asking import Api
    from .peers import Broker

NAMES = ("a", "b", "c")
NOT_THEIRS = "the session of this client id belongs to another user"
PROMISED_SECONDS = 0.05


@contextlib.asynccontextmanager
async def three(database: str, audits: Path | None = None, **sections: Any) -> AsyncIterator[list[Broker]]:
    async with contextlib.AsyncExitStack() as stack:
        brokers = []
        for name in NAMES:
            audit = {} if audits is None else {"audit": {"file": str(audits / f"{name}.jsonl")}}
            node = running(store=database, node_id=name, **audit, **sections)
            brokers.append(await stack.enter_async_context(node))
        yield brokers


def audited(audits: Path, event: str) -> list[dict[str, Any]]:
    """The lines of all nodes about one kind of event."""
    lines = [
        json.loads(line) for name in NAMES for line in (audits / f"{name}.jsonl").read_text().splitlines()
    ]
    return [line for line in lines if line["event"] == event]


# blocks


async def test_a_block_on_one_node_is_in_force_on_the_others_within_50_ms(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the call on A until the sessions on B and C have ended, in the median of 21."""
    # Only what the database tells may bring the block: a poll could come in time by chance.
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.blocks.blocked._POLL_SECONDS", 600.0)
    loop, took = asyncio.get_running_loop(), []
    async with three(database) as (a, b, c):
        for number in range(21):
            user = f"user-{number}"
            async with (
                log_in(b.address(), connect("on-b", username=user)) as on_b,
                log_in(c.address(), connect("on-c", username=user)) as on_c,
            ):
                assert (on_b.connack, on_c.connack) == (WELCOME, WELCOME)
                since = loop.time()
                await a.service.blocked.add(BlockedClient(type="USERNAME", value=user))
                assert [*await asyncio.gather(on_b.end(), on_c.end())] == [b"", b""]
                took.append(loop.time() - since)
            for broker in (a, b, c):
                async with dial(broker.address(), connect("again", username=user).encode()) as client:
                    assert await client.end() == connack(5)
        assert statistics.median(took) < PROMISED_SECONDS


async def test_a_block_on_one_node_is_in_the_audit_log_of_each_and_by_an_operator_in_one(
    database: str, tmp_path: Path
) -> None:
    async with three(database, tmp_path) as (a, b, c):
        block = BlockedClient(type="CLIENT_ID", value="dev")
        await a.service.blocked.add(block, by="night shift")
        for broker in (b, c):
            await broker.until(lambda broker=broker: broker.service.blocked.get(block.key) is not None)
        await b.service.blocked.remove("CLIENT_ID", "dev", by="day shift")
        for broker in (a, c):
            await broker.until(lambda broker=broker: broker.service.blocked.get(block.key) is None)
    assert sorted(line["by"] for line in audited(tmp_path, "block.added")) == [
        "night shift",
        "store",
        "store",
    ]
    assert sorted(line["by"] for line in audited(tmp_path, "block.removed")) == [
        "day shift",
        "store",
        "store",
    ]


async def test_five_wrong_logins_spread_over_three_nodes_ban_once(database: str, tmp_path: Path) -> None:
    banning = {"enabled": True, "max_failures": 5, "window": 60, "block_for": 600}
    async with three(database, tmp_path, auto_block=banning) as brokers:
        for number in range(5):
            await wrong_login(brokers[number % 3])
        await until_banned(brokers)
        blocks = (await brokers[0].service.blocked.find(BlockQuery())).data
        assert [(block.value, block.created_by, block.strikes) for block in blocks] == [(OTHER[0], "auto", 1)]
        for broker in brokers:
            async with dial(broker.address(), source=OTHER) as client:
                assert await client.end() == b""
        assert sum(broker.service._auto_block.bans for broker in brokers) == 1
    assert [line["by"] for line in audited(tmp_path, "block.added") if line["by"] != "store"] == ["auto"]


async def test_a_ban_whose_node_has_died_is_made_by_another(database: str) -> None:
    banning = {"enabled": True, "max_failures": 3, "window": 60, "block_for": 600}
    async with running(store=database, auto_block=banning) as broker:
        now = broker.service._clock()
        for _ in range(3):  # by a node that stored no ban
            await broker.service.blocked._store.add_failure(OTHER[0], int(now * 1000), 60_000)
        await wrong_login(broker)
        await until_banned([broker])


async def wrong_login(broker: Broker) -> None:
    async with dial(broker.address(), connect(password=b"wrong").encode(), source=OTHER) as client:
        await client.end()


async def until_banned(brokers: list[Broker]) -> None:
    for broker in brokers:
        await broker.until(lambda broker=broker: broker.service.blocked.match_address(OTHER[0]) is not None)


# who owns a client id


async def test_a_client_id_of_another_user_on_another_node_is_refused(database: str) -> None:
    async with three(database) as (a, b, _):
        async with log_in(a.address(), connect("dev", clean_session=False)) as client:
            await a.until_connected(1)
            async with log_in(b.address(), connect("dev", username="thief"), source=OTHER) as thief:
                assert thief.connack == connack(5)
            (row,) = await b.rows()
            assert (row.reason_code, row.reason) == ("access-denied", NOT_THEIRS)
            assert await client.ask(b"\xc0\x00") == b"\xd0\x00"
        await a.until_connected(0)
        async with log_in(b.address(), connect("dev", username="thief"), source=OTHER) as thief:
            assert thief.connack == connack(5)  # the session is kept
        async with log_in(b.address(), connect("dev")) as client:
            assert client.connack == WELCOME


async def test_any_user_may_have_a_client_id_where_the_configuration_says_so(database: str) -> None:
    async with three(database, mqtt={"client_id_owner": "any"}) as (a, b, _), log_in(a.address()) as client:
        await a.until_connected(1)
        async with log_in(b.address(), connect(username="other"), source=OTHER) as other:
            assert other.connack == WELCOME
            assert await client.end() == b""


async def test_a_client_id_of_another_user_on_another_node_is_not_told_to_the_server(database: str) -> None:
    server = Server()
    behind = {"backend": {"upstream": {"servers": [server.address]}}, "amqtt": {}}
    try:
        async with (
            running(store=database, node_id="a", **behind) as a,
            running(store=database, node_id="b", **behind) as b,
            log_in(a.address(), connect(clean_session=False)) as client,
        ):
            assert client.connack == WELCOME
            await a.until_connected(1)
            async with log_in(b.address(), connect(username="thief"), source=OTHER) as thief:
                assert thief.connack == connack(5)
            assert len(server.connects) == 1
            async with log_in(b.address(), connect(), source=OTHER) as moved:
                assert moved.connack == WELCOME
    finally:
        server.close()


async def test_a_database_that_is_silent_holds_logins_up_for_a_moment_only(
    database: str, postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose a client id is on other nodes is not known then: everybody is let in, and one line says so."""
    loop = asyncio.get_running_loop()
    async with (
        postgres.linked(postgres_server) as link,
        running(store=postgres_server.dsn(link.directory)) as broker,
    ):
        link.delay = 600.0
        took = []
        for number in range(20):
            since = loop.time()
            async with log_in(broker.address(), connect(f"dev-{number}")) as client:
                assert client.connack == WELCOME
            took.append(loop.time() - since)
        link.delay = 0.0
        link.cut()
        assert statistics.median(took) < PROMISED_SECONDS
        assert max(took) < 2.0
    said = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in said if line.startswith("clients are let in without asking")]
    assert line.endswith("the store has not answered in 0.25 s")


# what operators see


@contextlib.asynccontextmanager
async def two_with_api(database: str) -> AsyncIterator[tuple[Broker, Api, Broker, Api]]:
    async with (
        serving(store=database, node_id="a") as (a, asking_a),
        serving(store=database, node_id="b") as (b, asking_b),
    ):
        yield a, asking_a, b, asking_b


async def test_counts_are_those_of_all_nodes(database: str) -> None:
    async with (
        two_with_api(database) as (a, asking_a, b, asking_b),
        log_in(a.address(), connect("one")),
        log_in(a.address(), connect("two")),
    ):
        async with log_in(b.address(), connect("kept", clean_session=False)):
            pass
        async with dial(b.address(), connect("bad", password=b"wrong").encode()) as client:
            await client.end()
        await b.rows(1)
        wanted = {"connectedCount": 2, "disconnectedCount": 1, "totalCount": 3}
        for api in (asking_a, asking_b):
            await until_shown(api, "/api/client-session/info", wanted)
            seen = {"connected": 2, "sessions": 3, "countsAllNodes": True, "unauthorizedRows": 1}
            await until_shown(api, "/api/overview", seen)
        # Who was let in is counted by the node that did it.
        assert (await asking_a.get("/api/overview"))["accepted"] == 2
        assert (await asking_b.get("/api/overview"))["accepted"] == 1


async def until_shown(api: Api, path: str, wanted: dict[str, Any]) -> None:
    async def same() -> bool:
        return bool(wanted.items() <= (await api.get(path)).items())

    await until(same)


async def test_sessions_that_a_node_has_left_behind_are_counted(database: str) -> None:
    server = Server()
    behind = {"backend": {"upstream": {"servers": [server.address]}}, "amqtt": {}}
    try:
        async with running(store=database, node_id="b", **behind) as b:
            async with log_in(b.address(), connect("kept", clean_session=False)):
                pass
            await b.until_connected(0)
        async with serving(store=database, node_id="a", **behind) as (_, api):
            wanted = {"connectedCount": 0, "disconnectedCount": 1, "totalCount": 1}
            await until_shown(api, "/api/client-session/info", wanted)
    finally:
        server.close()


async def test_the_overview_shows_this_node_while_the_database_is_away(
    database: str, postgres_server: postgres.Server
) -> None:
    async with (
        postgres.linked(postgres_server) as link,
        serving(store=postgres_server.dsn(link.directory)) as (broker, api),
        log_in(broker.address()),
    ):
        link.accepts = False
        link.cut()
        seen = await api.get("/api/overview")
        assert (seen["connected"], seen["sessions"], seen["countsAllNodes"]) == (1, 1, False)
        assert any("store" in line for line in seen["notReady"])
        link.accepts = True


COVERED = [
    ({"type": "CLIENT_ID", "value": "on-b"}, ["on-b"]),
    ({"type": "CLIENT_ID", "value": "ON-B"}, []),
    ({"type": "USERNAME", "value": "user"}, ["on-a", "on-b"]),
    ({"type": "IP_ADDRESS", "value": "198.51.100.0/24"}, ["on-b"]),
    ({"type": "REGEX", "value": "on-.*", "regexMatchTarget": "BY_CLIENT_ID"}, ["on-a", "on-b"]),
    ({"type": "REGEX", "value": "ot.er", "regexMatchTarget": "BY_USERNAME"}, ["third"]),
    ({"type": "REGEX", "value": "198[.].*", "regexMatchTarget": "BY_IP_ADDRESS"}, ["on-b"]),
]


async def test_a_preview_counts_the_clients_of_all_nodes(database: str) -> None:
    async with (
        two_with_api(database) as (a, api, b, _),
        log_in(a.address(), connect("on-a")),
        log_in(b.address(), connect("on-b"), source=OTHER),
        log_in(b.address(), connect("third", username="other")),
    ):
        async with log_in(b.address(), connect("on-none", clean_session=False)):
            pass
        await b.until_connected(3)
        for block, covered in COVERED:
            seen = await api.get("/api/blockedClient/preview", **block)
            assert (seen["sessions"], sorted(seen["examples"])) == (len(covered), covered), block
