"""What nodes know of each other through PostgreSQL: the sessions of all, who lives, and what they ask."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt.model.connection import Connection, TlsInfo
from proxyproto_rs.mqtt.model.session_query import SessionQuery
from proxyproto_rs.mqtt.model.session_record import SessionRecord, Traffic
from proxyproto_rs.mqtt.store.nodes import NodeCounts
from proxyproto_rs.mqtt.tables.session_query import find

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")

from proxyproto_rs.mqtt.store.postgresql import nodes as implementation  # noqa: E402
from proxyproto_rs.mqtt.store.postgresql import session_rows, value_by_value  # noqa: E402
from proxyproto_rs.mqtt.store.postgresql.session_query import Conditions, order  # noqa: E402
from proxyproto_rs.mqtt.store.postgresql.store import PostgresStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from proxyproto_rs.mqtt.store.postgresql.nodes import PostgresNodes

COUNTS = NodeCounts(0, 0, {})
WAIT = 10.0  # seconds; a test that waits so long has failed


def record(client_id: str, host: str = "192.0.2.10", **changes: Any) -> SessionRecord:
    connection = Connection(
        session_id=changes.pop("session_id", f"session-{client_id}"),
        listener=changes.pop("listener", "tcp"),
        client=(host, 50123),
        proxy=changes.pop("proxy", ("10.0.0.9", 4711)),
        destination=("198.51.100.1", 1883),
        header=changes.pop("header", Header.v2(("192.0.2.1", 1), ("192.0.2.2", 2), tlvs=[(0xE0, b"x")])),
        address_source="header",
        tls=changes.pop("tls", None),
    )
    values: dict[str, Any] = {
        "username": "user",
        "node_id": "node-1",
        "clean_start": True,
        "keep_alive_seconds": 60,
        "session_expiry_interval": 0,
        "connected_at": 1000,
        "traffic": Traffic(bytes_in=7, bytes_out=8, packets_in=9, packets_out=10),
    }
    return SessionRecord(client_id=client_id, connection=connection, **{**values, **changes})


RECORDS = [
    record("dev-1", "192.0.2.10", connected_at=1000, subscriptions_count=1),
    record("dev-2", "192.0.2.11", connected_at=2000, subscriptions_count=2, username="admin"),
    record("Sensor", "2001:db8::7", connected_at=3000, listener="ssl", clean_start=False, username=None),
    record("dev_3", "192.0.2.9", connected_at=3000, node_id="node-3"),
    record("old", "10.1.2.3", connected_at=4000, connected=False, disconnected_at=5000, header=None),
    record("local", "", connected_at=500, node_id="node-2", proxy=None, header=None),
]

FILTERS: list[dict[str, Any]] = [
    {},
    {"text_search": "DEV"},
    {"text_search": "dev_"},
    {"text_search": "ensor"},
    {"username": "adm"},
    {"start_time": 2000, "end_time": 3000},
    {"connected_status_list": ("DISCONNECTED",)},
    {"connected_status_list": ("CONNECTED",)},
    {"connected_status_list": ("CONNECTED", "DISCONNECTED")},
    {"client_type_list": ("DEVICE",)},
    {"client_type_list": ("APPLICATION",)},
    {"clean_start_list": (False,)},
    {"node_id_list": ("node-2", "node-3")},
    {"listener_list": ("ssl",)},
    {"proxy_version": 2},
    {"proxy_version": 0},
    *({"subscriptions": 1, "subscription_operation": how} for how in ("EQUAL", "NOT_EQUAL", "GREATER")),
    *(
        {"subscriptions": 1, "subscription_operation": how}
        for how in ("LESS", "GREATER_OR_EQUAL", "LESS_OR_EQUAL")
    ),
    {"client_ip_address": "192.0.2.1"},
    {"client_ip_address": "192.0.2.10/31"},
    {"client_ip_address": "2001:db8::/32"},
    {"client_ip_address": "0.0.0.0/0"},
]


async def listed(query: SessionQuery) -> Sequence[SessionRecord]:
    """All rows of a query, behind its cursor, as a registry in memory lists them."""

    async def at_once() -> AsyncIterator[Sequence[SessionRecord]]:
        yield RECORDS

    page = await find(at_once(), dataclasses.replace(query, page=0, page_size=1000))
    return page.data


@contextlib.asynccontextmanager
async def node(dsn: str, node_id: str = "node-1", *, outlives: bool = True) -> AsyncIterator[PostgresNodes]:
    store = await PostgresStore.open(dsn)
    try:
        await store.nodes.enter(node_id, outlives=outlives)
        yield store.nodes
    finally:
        await store.close()


# the list


async def test_a_session_comes_back_as_it_went(database: str) -> None:
    tls = TlsInfo("proxy", "TLSv1.3", None, "host", "cn", client_cert_verified=True)
    whole = record("dev", tls=tls, disconnect_reason="keep-alive", upstream="10.0.0.1:1883", detail="d")
    async with node(database) as nodes:
        for sent in (whole, record("bare", header=None, proxy=None, username=None)):
            assert await nodes.write([sent], ()) == ()
            stored = await nodes.get(sent.client_id)
            assert stored is not None
            assert stored.connection == sent.connection
            # The loop time of the last byte says nothing elsewhere: it goes as the time of day.
            assert json.dumps({**stored.to_json(), "lastSeen": 0}) == json.dumps(
                {**sent.to_json(), "lastSeen": 0}
            )
        assert await nodes.get("nobody") is None


async def test_every_filter_and_order_gives_what_memory_gives(database: str) -> None:
    async with node(database) as nodes:
        await nodes.write(RECORDS, ())
        for filters in FILTERS:
            for column in SessionQuery.sort_properties:
                if column == "last_seen":
                    continue  # see above
                for direction in ("ASC", "DESC"):
                    query = SessionQuery(**filters, sort_property=column, sort_order=direction, page_size=2)
                    wanted = [found.client_id for found in await listed(query)]
                    found, total = [], None
                    for page_number in range(3):
                        page = await nodes.find(dataclasses.replace(query, page=page_number))
                        found += [session.client_id for session in page.data]
                        total = page.total_elements
                        assert page.has_next == (len(wanted) > 2 * page_number + 2)
                    assert (found, total) == (wanted, len(wanted)), query


async def test_cursors_go_through_all_rows_once_in_every_order(database: str) -> None:
    async with node(database) as nodes:
        await nodes.write(RECORDS, ())
        for column in SessionQuery.sort_properties:
            for direction in ("ASC", "DESC"):
                query = SessionQuery(sort_property=column, sort_order=direction, page_size=1)
                found: list[str] = []
                while True:
                    page = await nodes.find(query)
                    found += [session.client_id for session in page.data]
                    rest = [session.client_id for session in await listed(query)]
                    if column != "last_seen":
                        assert rest[:1] == found[-1:]
                    if page.cursor is None:
                        break
                    query = dataclasses.replace(query, cursor=page.cursor)
                assert sorted(found) == sorted(session.client_id for session in RECORDS), query


async def test_no_filter_reads_the_whole_table(database: str) -> None:
    """With 20,000 rows, as the planner itself chooses, in the default order and behind a cursor."""
    selective: list[dict[str, Any]] = [
        {"text_search": "dev-4242"},
        {"username": "user-4242"},
        {"start_time": 19_900},
        {"end_time": 200},
        {"connected_status_list": ("DISCONNECTED",)},
        {"clean_start_list": (False,)},
        {"node_id_list": ("node-2",)},
        {"listener_list": ("ssl",)},
        {"proxy_version": 1},
        {"subscriptions": 3},
        {"client_ip_address": "10.0.42.42"},
        {"client_ip_address": "10.0.42.0/28"},
    ]
    common: list[dict[str, Any]] = [
        {},
        {"connected_status_list": ("CONNECTED",)},
        {"clean_start_list": (True,)},
        {"node_id_list": ("node-1",)},
        {"proxy_version": 2},
        {"text_search": "dev"},
    ]
    async with filled(database) as (nodes, connection):

        async def plan(statement: str, values: list[Any]) -> str:
            rows = await connection.fetch(f"EXPLAIN {statement}", *values)
            return "\n".join(row[0] for row in rows)

        for filters in (*selective, *common):
            first = SessionQuery(**filters)
            page = await nodes.find(first)
            assert page.data, filters
            queries = [first]
            if page.cursor is not None:
                queries.append(dataclasses.replace(first, cursor=page.cursor))
            for query in queries:
                conditions = Conditions(query)
                statement = (
                    f"SELECT * FROM proxyproto_rs.client_session{conditions.rows}{order(query)} LIMIT 51"
                )
                said = await plan(statement, conditions.values)
                assert "Seq Scan" not in said, f"{query}\n{said}"
            if filters in selective:
                conditions = Conditions(first)
                counting = f"SELECT FROM proxyproto_rs.client_session{conditions.filters} LIMIT 10001"
                said = await plan(counting, conditions.filter_values)
                assert "Seq Scan" not in said, f"{first}\n{said}"
        total = (await nodes.find(SessionQuery())).total_elements
        assert 18_000 < total < 22_000  # an estimate: counting them would read them all


@contextlib.asynccontextmanager
async def filled(database: str) -> AsyncIterator[tuple[PostgresNodes, Any]]:
    """A node with 20,000 sessions, and a connection on which the planner looks at each query anew."""
    async with node(database) as nodes:
        await nodes.write([record("dev-x")], ())
        connection = await asyncpg.connect(database)
        try:
            await connection.execute(FILL, 20_000)
            await connection.execute("VACUUM ANALYZE proxyproto_rs.client_session")
            await connection.execute("SET plan_cache_mode = force_custom_plan")
            yield nodes, connection
        finally:
            await connection.close()


class Explained:
    """A connection that keeps the plans of what it is asked."""

    def __init__(self, connection: Any) -> None:
        self.plans: list[str] = []
        self._connection = connection

    async def fetch(self, statement: str, *values: Any) -> Any:
        rows = await self._connection.fetch(f"EXPLAIN {statement}", *values)
        self.plans.append("\n".join(row[0] for row in rows))
        return await self._connection.fetch(statement, *values)

    async def fetchval(self, statement: str, *values: Any) -> Any:
        rows = await self.fetch(statement, *values)
        return rows[0][0] if rows else None


@pytest.mark.parametrize("filters", [{}, {"connected_status_list": ("CONNECTED",)}], ids=["all", "connected"])
async def test_no_order_sorts_the_whole_table(database: str, filters: dict[str, Any]) -> None:
    """With 20,000 rows, as the planner itself chooses, at the beginning and behind a cursor."""
    async with filled(database) as (nodes, connection):
        for column in SessionQuery.sort_properties:
            if column in ("subscriptions_count", "client_type") or (filters and column == "disconnected_at"):
                continue  # most rows have the same value: 0, DEVICE, and of connected clients 0
            for direction in ("ASC", "DESC"):
                query = SessionQuery(**filters, sort_property=column, sort_order=direction)
                for _ in range(2):
                    conditions = Conditions(query)
                    explained = Explained(connection)
                    if await value_by_value.read(explained, query, 51) is None:  # type: ignore[arg-type]
                        statement = f"{session_rows.SELECT}{conditions.rows}{order(query)} LIMIT 51"
                        await explained.fetch(statement, *conditions.values)
                    for plan in explained.plans:
                        assert "Seq Scan" not in plan, f"{query}\n{plan}"
                        assert not re.search(r"(?<!Incremental )Sort +\(", plan), f"{query}\n{plan}"
                    page = await nodes.find(query)
                    query = dataclasses.replace(query, cursor=page.cursor)


async def test_an_order_of_very_many_values_is_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_by_value, "_MOST_VALUES", 1)
    async with node(database) as nodes:
        await nodes.write(RECORDS, ())
        for direction in ("ASC", "DESC"):
            query = SessionQuery(sort_property="node_id", sort_order=direction)
            found = [session.client_id for session in (await nodes.find(query)).data]
            assert found == [session.client_id for session in await listed(query)]
    assert len({one.node_id for one in RECORDS}) > 1


FILL = """
INSERT INTO proxyproto_rs.client_session
SELECT (jsonb_populate_record(known, jsonb_build_object(
    'client_id', 'dev-' || number, 'session_id', 's-' || number, 'username', 'user-' || number,
    'connected', number % 100 > 0, 'client_ip_adr', '10.0.' || number / 256 % 256 || '.' || number % 256,
    'address', '10.0.' || number / 256 % 256 || '.' || number % 256, 'clean_start', number % 100 <> 1,
    'node_id', 'node-' || 1 + (number % 100 = 2)::int, 'listener', CASE WHEN number % 100 = 3 THEN 'ssl' ELSE 'tcp' END,
    'proxy_version', 2 - (number % 100 = 4)::int, 'subscriptions_count', CASE WHEN number % 100 = 5 THEN 3 ELSE 0 END,
    'bytes_in', number % 5000, 'bytes_out', number % 7000, 'last_seen', number,
    'disconnected_at', CASE WHEN number % 100 > 0 THEN 0 ELSE number + 60 END, 'connected_at', number))).*
FROM proxyproto_rs.client_session AS known, generate_series(1, $1::int) AS number WHERE known.client_id = 'dev-x'
"""


# who owns a session


async def test_a_session_belongs_to_the_node_that_it_came_to_last(database: str) -> None:
    async with node(database, "a") as a, node(database, "b") as b:
        told_a, told_b = asyncio.Event(), asyncio.Event()
        a.when_asked(told_a.set)
        b.when_asked(told_b.set)
        for told in (told_a, told_b):  # each listens now
            await asyncio.wait_for(told.wait(), WAIT)
            told.clear()
        older = record("dev", session_id="older", node_id="a", connected_at=1000)
        newer = record("dev", session_id="newer", node_id="b", connected_at=2000)
        assert await a.write([older], ()) == ()
        assert await b.write([newer], ()) == ()
        await asyncio.wait_for(told_a.wait(), WAIT)
        (request,) = await a.asked()
        assert (request.verb, request.client_id, request.session_id) == ("taken-over", "dev", "older")
        await a.answer([(request.number, "yes")])
        assert await a.asked() == ()
        # What the first still has to say of its session comes too late.
        assert await a.write([dataclasses.replace(older, connected=False)], ()) == ("dev",)
        await a.write([], ["dev"])
        stored = await b.get("dev")
        assert stored is not None
        assert (stored.session_id, stored.connected) == ("newer", True)
        await b.write([], ["dev"])
        assert await b.get("dev") is None


async def test_a_session_that_two_nodes_write_at_once_is_taken_over_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins to write before the first has committed."""
    async with node(database, "a") as a, node(database, "b") as b:
        connection = await asyncpg.connect(database)
        try:
            await a.write([record("dev", session_id="older", connected_at=1000)], ())
            writing = connection.transaction()
            await writing.start()
            await connection.execute(
                "CREATE TEMPORARY TABLE kept AS SELECT * FROM proxyproto_rs.client_session"
            )
            await connection.execute("DELETE FROM proxyproto_rs.client_session")
            await writing.commit()
            writing = connection.transaction()
            await writing.start()
            await connection.execute("INSERT INTO proxyproto_rs.client_session SELECT * FROM kept")
            late = asyncio.create_task(b.write([record("dev", session_id="newer", connected_at=2000)], ()))
            watcher = await asyncpg.connect(database)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await watcher.fetchval(waiting):
                assert not late.done()
            await watcher.close()
            await writing.commit()
            assert await late == ()
            (request,) = await a.asked()
            assert (request.verb, request.session_id) == ("taken-over", "older")
        finally:
            await connection.close()


async def test_a_node_that_writes_later_learns_that_its_client_had_moved(database: str) -> None:
    async with node(database, "a") as a, node(database, "b") as b:
        await b.write([record("dev", node_id="b", connected_at=2000)], ())
        assert await a.write([record("dev", node_id="a", connected_at=1000), record("x")], ()) == ("dev",)
        assert await b.asked() == ()


async def test_eight_writers_of_the_same_sessions_meet_no_deadlock(database: str) -> None:
    async def write(nodes: PostgresNodes, number: int) -> None:
        for turn in range(12):
            at = turn * 100 + number
            some = [
                record(f"c-{(turn * 7 + index * (number + 1)) % 300}", connected_at=at)
                for index in range(120)
            ]
            await asyncio.gather(
                nodes.write(some, [f"c-{index}" for index in range(number * 10, number * 10 + 10)]),
                nodes.settle(None),
            )

    async with contextlib.AsyncExitStack() as stack:
        all_nodes = [await stack.enter_async_context(node(database, str(number))) for number in range(8)]
        connection = await asyncpg.connect(database)
        stack.push_async_callback(connection.close)
        statement = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        before = await connection.fetchval(statement)
        await asyncio.gather(*(write(nodes, number) for number, nodes in enumerate(all_nodes)))
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        assert await connection.fetchval(statement) == before


# who lives


async def test_sessions_of_a_node_that_is_silent_are_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implementation, "_SETTLED_AT_ONCE", 2)
    async with node(database, "dead") as dead, node(database, "alive") as alive:
        kept = [record(f"kept-{number}", node_id="dead") for number in range(5)]
        await dead.write([*kept, record("clean", node_id="dead", is_kept=False)], ())
        await alive.write([record("other", node_id="alive")], ())
        assert await alive.settle(3600.0) == 0
        connection = await asyncpg.connect(database)
        await connection.execute(
            "UPDATE proxyproto_rs.node SET seen = seen - interval '1 hour' WHERE node_id = 'dead'"
        )
        await connection.close()
        assert await alive.settle(None) == 0  # it may be the database that was away
        assert await alive.settle(60.0) == 6
        page = await alive.find(SessionQuery(sort_property="client_id", sort_order="ASC"))
        assert [session.client_id for session in page.data] == [*(f"kept-{n}" for n in range(5)), "other"]
        first = page.data[0]
        assert (first.connected, first.disconnect_reason, first.detail) == (
            False,
            "connection-lost",
            "node dead has gone",
        )
        assert [known.node_id for known in await alive.list()] == ["alive"]
        # It was only slow. It comes back as a new node, and says what is.
        assert not await dead.beat(COUNTS)
        await dead.enter("dead", outlives=True)
        assert await dead.beat(COUNTS)
        assert await dead.write(kept, ()) == ()
        stored = await alive.get("kept-0")
        assert stored is not None
        assert stored.connected


@pytest.mark.parametrize("outlives", [True, False])
async def test_what_a_node_leaves_behind(outlives: bool, database: str) -> None:
    async with node(database, "a", outlives=outlives) as a, node(database, "b") as b:
        ended = record("dev", connected=False, disconnected_at=5000, disconnect_reason="disconnect")
        await a.write([ended], ())
        await a.leave()
        assert [known.node_id for known in await b.list()] == ["b"]
        assert await b.settle(None) == 1
        stored = await b.get("dev")
        assert (stored is not None) == outlives
        if stored is not None:
            assert (stored.disconnected_at, stored.disconnect_reason) == (5000, "disconnect")
            assert await b.purge(ended.forgotten_at - 1) == 0
            assert await b.purge(ended.forgotten_at) == 1


async def test_nodes_tell_of_themselves(database: str) -> None:
    async with node(database, "a") as a, node(database, "b") as b:
        await a.beat(NodeCounts(3, 5, {"connects": [("192.0.2.1", 2.5)]}))
        here, there = await b.list()
        assert (here.node_id, here.is_this, there.node_id, there.is_this) == ("a", False, "b", True)
        assert (here.connected, here.rows) == (3, 5)
        assert [tuple(entry) for entry in here.top["connects"]] == [("192.0.2.1", 2.5)]
        assert here.started_at <= here.seen_at


# what they ask


async def test_a_request_reaches_the_node_that_has_the_session_and_is_answered(database: str) -> None:
    async with node(database, "a") as a, node(database, "b") as b:
        assert await b.ask("disconnect", "dev", None, "api") is None
        await a.write([record("dev")], ())
        number = await b.ask("disconnect", "dev", "session-dev", "me")
        assert number is not None
        assert await b.asked() == ()
        (request,) = await a.asked()
        assert request == (number, "disconnect", "dev", "session-dev", "me")
        assert await b.answer_of(number) is None
        await a.answer([(number, "yes")])
        assert (await b.answer_of(number), await a.asked()) == ("yes", ())
        await a.leave()
        assert await b.ask("disconnect", "dev", None, "api") is None
