"""Nodes that share a PostgreSQL: rows a second, how soon a block is everywhere, and pages of a million sessions.

    python benches/nodes.py [rows] [blocks] [pages] [SESSIONS]

It starts a PostgreSQL of its own, as the tests do, with the settings of a new cluster: fsync is on. Everything else runs
in this process. The times are wall-clock times from the call to its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from rounds import Spread, table

from proxyproto_rs.mqtt.model.connection import Connection
from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient
from proxyproto_rs.mqtt.model.session_query import SessionQuery
from proxyproto_rs.mqtt.model.session_record import SessionRecord, Traffic
from proxyproto_rs.mqtt.store.nodes import NodeCounts
from proxyproto_rs.mqtt.store.postgresql.session_rows import COLUMNS
from proxyproto_rs.mqtt.store.postgresql.store import PostgresStore
from proxyproto_rs.mqtt.tables.blocks.blocked import Blocked, BlockEvents

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from mqtt import postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SESSIONS = 1_000_000
BATCH, BATCHES, ROUNDS = 1000, 10, 5
BLOCKS = 1000
PAGES = 9  # times that each page is asked for

PROMISED = 50.0  # ms


@contextlib.asynccontextmanager
async def stores(dsn: str, count: int) -> AsyncIterator[list[PostgresStore]]:
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            store = await PostgresStore.open(dsn)
            stack.push_async_callback(store.close)
            opened.append(store)
        yield opened


def row(number: int) -> UnauthorizedClient:
    return UnauthorizedClient(
        client_id=f"device-{number:08}",
        ip_address=f"198.51.{number >> 8 & 255}.{number & 255}",
        ts=number,
        first_ts=number,
        username="user",
        reason="an auth plugin said no",
        reason_code="bad-credentials",
        listener="ssl",
    )


def session(number: int, node_id: str) -> SessionRecord:
    return SessionRecord(
        client_id=f"device-{number:08}",
        username=f"user-{number % 1000}",
        connection=Connection(
            session_id=uuid.uuid4().hex,
            listener="ssl",
            client=(f"198.51.{number >> 8 & 255}.{number & 255}", 40_000),
            proxy=("10.0.0.1", 5000),
            destination=("192.0.2.1", 8883),
            header=None,
            address_source="header",
            tls=None,
        ),
        traffic=Traffic(),
        node_id=node_id,
        clean_start=False,
        keep_alive_seconds=60,
        session_expiry_interval=0,
        connected_at=number,
        is_kept=True,
    )


async def rows_a_second(dsn: str) -> None:
    """Batches of 1,000, as a node writes them; and three nodes that write the same rows at once."""
    results: dict[str, list[float]] = {}
    async with stores(dsn, 3) as opened:
        for number, store in enumerate(opened):
            await store.nodes.enter(f"node-{number}", outlives=True)
        for turn in range(ROUNDS):
            numbers = [
                range(at, at + BATCH) for at in range(turn * 10**6, turn * 10**6 + BATCH * BATCHES, BATCH)
            ]
            batches = [[row(number) for number in some] for some in numbers]
            for what in ("refused clients, new", "refused clients, known"):
                since = time.perf_counter()
                for batch in batches:
                    await opened[0].upsert_unauthorized(batch)
                results.setdefault(what, []).append(BATCH * BATCHES / (time.perf_counter() - since))
            since = time.perf_counter()
            await asyncio.gather(*(write_all(store, batches) for store in opened))
            results.setdefault("refused clients, known, three nodes together", []).append(
                3 * BATCH * BATCHES / (time.perf_counter() - since)
            )
            for what in ("sessions, new", "sessions, known"):
                records = [[session(number, "node-0") for number in some] for some in numbers]
                since = time.perf_counter()
                for some in records:
                    await opened[0].nodes.write(some, ())
                results.setdefault(what, []).append(BATCH * BATCHES / (time.perf_counter() - since))
    table(
        ("rows a second", "median (quartiles)"),
        [(what, thousands(Spread(found))) for what, found in results.items()],
    )


async def write_all(store: PostgresStore, batches: list[list[UnauthorizedClient]]) -> None:
    for batch in batches:
        await store.upsert_unauthorized(batch)


def thousands(spread: Spread) -> str:
    return f"{spread.median:,.0f} ({spread.low:,.0f}-{spread.high:,.0f})"


class Heard(BlockEvents):
    """Notes when a block is in force."""

    def __init__(self) -> None:
        self.at: dict[str, asyncio.Future[float]] = {}

    def added(self, block: BlockedClient, by: str) -> None:
        if by == "store":
            self.at[block.key].set_result(time.perf_counter())


async def propagation(dsn: str) -> None:
    """From `blocked.add()` on one node until the later of two others has the block in force."""
    loop = asyncio.get_running_loop()
    took, committed = [], []
    async with stores(dsn, 3) as opened:
        heard = [Heard(), Heard()]
        nodes = [
            Blocked(opened[0]),
            *(Blocked(store, events=one) for store, one in zip(opened[1:], heard, strict=True)),
        ]
        for node in nodes:
            await node.start()
        running = [asyncio.create_task(node.run()) for node in nodes]
        await asyncio.sleep(1.5)  # until all listen
        for number in range(BLOCKS):
            block = BlockedClient(type="IP_ADDRESS", value=f"203.0.{number >> 8}.{number & 255}")
            for one in heard:
                one.at[block.key] = loop.create_future()
            since = time.perf_counter()
            await nodes[0].add(block)
            committed.append(time.perf_counter() - since)
            took.append(max([await one.at[block.key] for one in heard]) - since)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    table(
        ("ms, of 1,000 blocks", "p50", "p99", "most"),
        [
            ("until the call returns", *quantiles(committed)),
            ("until the block is in force on both other nodes", *quantiles(took)),
        ],
    )


def quantiles(took: list[float]) -> tuple[str, ...]:
    took = sorted(1000 * one for one in took)
    return tuple(f"{one:.1f}" for one in (took[len(took) // 2], took[len(took) * 99 // 100], took[-1]))


async def fill(dsn: str, count: int) -> None:
    """Make the sessions. Their indexes are built afterwards, which takes a tenth of the time."""
    async with stores(dsn, 1) as (store,):
        await store.nodes.enter("node-0", outlives=True)
        await store.nodes.beat(NodeCounts(count, count, {}))
        await store.nodes.write([session(0, "node-0")], ())
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    try:
        since = time.perf_counter()
        await connection.execute(
            "SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET jit = off"
        )
        await connection.execute(
            "DELETE FROM proxyproto_rs.client_session WHERE client_id <> 'device-00000000'"
        )
        built = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'client_session'"
            " AND indexname <> 'client_session_pkey'"
        )
        for one in built:
            await connection.execute(f"DROP INDEX proxyproto_rs.{one['indexname']}")
        await connection.execute(FILL, count - 1)
        for one in built:
            await connection.execute(one["indexdef"])
        await connection.execute("VACUUM ANALYZE proxyproto_rs.client_session")
        print(f"{count:,} sessions after {time.perf_counter() - since:.0f} s\n", flush=True)
    finally:
        await connection.close()


async def pages(dsn: str) -> None:
    """Each filter and order that the API has, with totals, and behind cursors."""
    async with stores(dsn, 1) as (store,):
        found = []
        for what, query in queries():
            first, cursor, total = await timed(store, query)
            behind = None
            if cursor is not None:
                behind, _, _ = await timed(store, dataclasses.replace(query, page=0, cursor=cursor))
            is_late = max(first, behind or 0.0) > PROMISED
            shown = ("" if behind is None else f"{behind:.1f}", f"{total:,}", "over 50 ms" if is_late else "")
            found.append((what, f"{first:.1f}", *shown))
        table(("a page of 50, ms", "first", "behind its cursor", "total told", ""), found)


async def timed(store: PostgresStore, query: SessionQuery) -> tuple[float, str | None, int]:
    """The median of several askings, in ms; the cursor behind the page; the total that it tells."""
    took = []
    for _ in range(PAGES):
        since = time.perf_counter()
        page = await store.nodes.find(query)
        took.append(1000 * (time.perf_counter() - since))
    return statistics.median(took), page.cursor, page.total_elements


def queries() -> list[tuple[str, SessionQuery]]:
    filters: dict[str, dict[str, Any]] = {
        "all, the newest first": {},
        "connected": {"connected_status_list": ("CONNECTED",)},
        "disconnected (1 %)": {"connected_status_list": ("DISCONNECTED",)},
        "part of a client id, one row": {"text_search": "vice-00424242"},
        "part of a client id, 1,000 rows": {"text_search": "424"},
        "part of a client id, all rows": {"text_search": "device"},
        "user name, 1,000 rows": {"username": "user-424"},
        "an address": {"client_ip_address": "10.4.42.42"},
        "part of an address": {"client_ip_address": "4.42.42"},
        "a network /24": {"client_ip_address": "10.4.42.0/24"},
        "a network /8, all rows": {"client_ip_address": "10.0.0.0/8"},
        "a node (1 of 3)": {"node_id_list": ("node-2",)},
        "a listener (1 %)": {"listener_list": ("ws",)},
        "clean start (1 %)": {"clean_start_list": (True,)},
        "header version 1 (1 %)": {"proxy_version": 1},
        "5 subscriptions (1 %)": {"subscriptions": 5},
        "more than 0 subscriptions (all but 1 %)": {"subscriptions": 0, "subscription_operation": "GREATER"},
        "connected in the last 1 %": {"start_time": 990_000},
        "connected in the first 1 %": {"end_time": 10_000},
        "a user name and disconnected": {"username": "user-424", "connected_status_list": ("DISCONNECTED",)},
        "part of a client id and a node": {"text_search": "4242", "node_id_list": ("node-2",)},
    }
    asked = [(what, SessionQuery(**fields)) for what, fields in filters.items()]
    for column in SessionQuery.sort_properties:
        asked.append((f"all, by {column}", SessionQuery(sort_property=column, sort_order="ASC")))
        asked.append((f"all, by {column}, falling", SessionQuery(sort_property=column, sort_order="DESC")))
    asked.append(("page 1,000 by its number", SessionQuery(page=1000)))
    return asked


_FILLED = {
    "client_id": "'device-' || lpad(number::text, 8, '0')",
    "session_id": "md5(number::text)",
    "username": "'user-' || number % 1000",
    "connected": "number % 100 > 0",
    "client_ip_adr": "host('10.0.0.0'::inet + number)",
    "address": "'10.0.0.0'::inet + number",
    "clean_start": "number % 100 = 1",
    "node_id": "'node-' || number % 3",
    "listener": "CASE WHEN number % 100 = 3 THEN 'ws' ELSE 'ssl' END",
    "proxy_version": "CASE WHEN number % 100 = 4 THEN 1 ELSE 2 END",
    "subscriptions_count": "CASE WHEN number % 100 = 5 THEN 5 WHEN number % 100 = 6 THEN 0 ELSE 1 END",
    "last_seen": "number * 7919::bigint % 1000003",
    "bytes_in": "number % 5000",
    "bytes_out": "number % 7000",
    "disconnected_at": "CASE WHEN number % 100 = 0 THEN number + 60 ELSE 0 END",
    "connected_at": "number",
}
FILL = (
    f"INSERT INTO proxyproto_rs.client_session ({', '.join(COLUMNS)})"
    f" SELECT {', '.join(_FILLED.get(name, f'known.{name}') for name in COLUMNS)}"
    " FROM proxyproto_rs.client_session AS known, generate_series(1, $1::int) AS number"
    " WHERE known.client_id = 'device-00000000'"
)


async def main(arguments: list[str]) -> None:
    count = next((int(one) for one in arguments if one.isdigit()), SESSIONS)
    wanted = [one for one in arguments if not one.isdigit()] or ["rows", "blocks", "pages"]
    programs = postgres.programs()
    if programs is None:
        sys.exit("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.serving(programs, options=()) as server:
        for what in wanted:
            if what == "rows":
                await rows_a_second(server.dsn())
            elif what == "blocks":
                await propagation(server.dsn())
            elif what == "pages":
                await fill(server.dsn(), count)
                await pages(server.dsn())
            else:
                sys.exit(__doc__)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
