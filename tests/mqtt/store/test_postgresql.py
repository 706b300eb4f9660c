"""What only the store in PostgreSQL has to show: many writers, lost answers, a database that goes away, its versions.

What it has in common with SQLite stands in test_store.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.store.opening import check_store, open_store
from proxyproto_rs.mqtt.store.protocol import StoreError, StoreUnavailable

from .. import postgres
from ..peers import until

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")

from proxyproto_rs.mqtt.store.postgresql import schema  # noqa: E402
from proxyproto_rs.mqtt.store.postgresql.database import not_opened, shown  # noqa: E402
from proxyproto_rs.mqtt.store.postgresql.store import PostgresStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

WAIT = 10.0  # seconds; a test that waits so long has failed
WRITERS_SECONDS = float(os.environ.get("PROXYPROTO_WRITERS_SECONDS", "3"))
"""How long eight writers meet. The figures in docs/benchmarks.md are those of 60, with `-o timeout=200`."""


def row(
    client_id: str = "dev-7", ip: str = "203.0.113.7", ts: int = 1000, **fields: Any
) -> UnauthorizedClient:
    values: dict[str, Any] = {"first_ts": ts, "reason_code": "bad-credentials", "listener": "tcp", **fields}
    return UnauthorizedClient(client_id=client_id, ip_address=ip, ts=ts, **values)


def user(name: str) -> BlockedClient:
    return BlockedClient(type="USERNAME", value=name)


@contextlib.asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(dsn)
    try:
        yield store
    finally:
        await store.close()


async def attempts(store: PostgresStore) -> int:
    page = await store.find_unauthorized(UnauthorizedQuery(page_size=1000))
    return sum(entry.attempts for entry in page.data)


# lost answers


@contextlib.asynccontextmanager
async def cut_at_commits(server: postgres.Server) -> AsyncIterator[tuple[PostgresStore, postgres.Link]]:
    """A store whose connection is cut at each COMMIT: it is done, and its answer is lost."""
    async with postgres.linked(server) as link, opened(server.dsn(link.directory)) as store:
        link.cut_at = lambda chunk: b"COMMIT;" in chunk
        yield store, link


async def test_rows_whose_commit_was_not_answered_are_counted_once(
    database: str, postgres_server: postgres.Server
) -> None:
    async with cut_at_commits(postgres_server) as (store, link):
        batches = [[row(f"c{number % 3}"), row("same", attempts=10)] for number in range(6)]
        for number, batch in enumerate(batches):
            with pytest.raises(StoreUnavailable):
                await store.upsert_unauthorized(batch)
            if number % 2:  # the answer to the repeated one is lost too
                with pytest.raises(StoreUnavailable):
                    await store.upsert_unauthorized(batch)
            link.cut_at, cut_at = (lambda _: False), link.cut_at
            await store.upsert_unauthorized(batch)
            link.cut_at = cut_at
        link.cut_at = lambda _: False
        assert link.cuts == 9
        assert await attempts(store) == 66


async def test_rows_whose_commit_was_not_done_are_not_lost(
    database: str, postgres_server: postgres.Server
) -> None:
    async with postgres.linked(postgres_server) as link, opened(postgres_server.dsn(link.directory)) as store:
        link.cut_at = lambda chunk: b"INSERT INTO proxyproto_rs.unauthorized_client" in chunk
        with pytest.raises(StoreUnavailable):
            await store.upsert_unauthorized([row(attempts=3)])
        link.cut_at = lambda _: False
        await store.upsert_unauthorized([row(attempts=3)])
        assert (link.cuts, await attempts(store)) == (1, 3)


async def test_failures_whose_commit_was_not_answered_are_counted_once(
    database: str, postgres_server: postgres.Server
) -> None:
    async with cut_at_commits(postgres_server) as (store, link):
        with pytest.raises(StoreUnavailable):
            await store.add_failure("203.0.113.7", 10, 100)
        link.cut_at = lambda _: False
        # The repeated one comes together with a new one, in any order.
        counts = await asyncio.gather(
            store.add_failure("203.0.113.7", 11, 100), store.add_failure("203.0.113.7", 10, 100)
        )
        assert link.cuts == 1
        assert max(counts) == 2


# many writers


async def deadlocks(connection: Any) -> int:
    return int(
        await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    )


async def test_writers_of_the_same_rows_meet_no_deadlock_and_lose_nothing(database: str) -> None:
    """Eight nodes write, clear, delete and purge the same rows, each in an order of its own."""
    until = time.monotonic() + WRITERS_SECONDS

    async def write(seed: int, store: PostgresStore) -> int:
        choice, written = random.Random(seed), 0
        while time.monotonic() < until:
            # The rows "keep" are only written. The others are also deleted, in every way.
            rows = [row(f"keep-{choice.randrange(200)}", ts=2000) for _ in range(100)]
            rows += [row(f"gone-{choice.randrange(200)}", ts=choice.randrange(2000)) for _ in range(100)]
            choice.shuffle(rows)
            await store.upsert_unauthorized(rows)
            written += 100
            await asyncio.gather(
                *(
                    store.clear_unauthorized(f"gone-{choice.randrange(200)}", "203.0.113.7")
                    for _ in range(20)
                ),
                store.purge_unauthorized(1000, 10_000),
                store.delete_unauthorized(f"gone-{choice.randrange(200)}", None),
                *(store.add_failure(f"203.0.113.{choice.randrange(9)}", number, 5) for number in range(5)),
            )
        return written

    async with contextlib.AsyncExitStack() as stack, postgres.connected(database) as connection:
        before = await deadlocks(connection)
        stores = [await stack.enter_async_context(opened(database)) for _ in range(8)]
        written = await asyncio.gather(*(write(seed, store) for seed, store in enumerate(stores)))
        print(f"\n{sum(written):,} attempts in {WRITERS_SECONDS:g} s by 8 writers")
        page = await stores[0].find_unauthorized(UnauthorizedQuery(client_id="keep-", page_size=1000))
        assert sum(entry.attempts for entry in page.data) == sum(written) > 0
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        assert await deadlocks(connection) == before


async def test_failures_on_several_nodes_add_up(database: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(database)) for _ in range(5)]
        counts = await asyncio.gather(*(store.add_failure("203.0.113.7", 10, 100) for store in stores))
        assert sorted(counts) == [1, 2, 3, 4, 5]


async def test_every_poller_sees_every_change_of_every_writer(database: str) -> None:
    async def write(node: int, store: PostgresStore) -> set[int]:
        revisions = set()
        for number in range(100):
            revisions.add((await store.put_block(user(f"u-{node}-{number}"))).revision)
            if number % 10 == 9:
                assert await store.delete_block(f"USERNAME:u-{node}-{number - 1}")
        return revisions

    async def poll(store: PostgresStore, done: asyncio.Event) -> dict[str, int]:
        """Keep what a node keeps that only ever asks for what is new."""
        known: dict[str, int] = {}
        revision = 0
        while True:
            last = done.is_set()
            changes = await store.blocks(revision)
            assert changes.revision >= revision
            revision = changes.revision
            known.update((block.key, block.revision) for block in changes.changed)
            for key in changes.removed:
                known.pop(key, None)
            if last:
                return known

    done = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(database)) for _ in range(6)]
        polling = [asyncio.create_task(poll(store, done)) for store in stores[3:]]
        revisions = await asyncio.gather(*(write(node, store) for node, store in enumerate(stores[:3])))
        done.set()
        seen = await asyncio.gather(*polling)
        stored = {block.key: block.revision for block in (await stores[0].blocks(0)).changed}
        assert len(stored) == 270
        assert seen == [stored] * 3
        assert len(set().union(*revisions)) == 300


@pytest.mark.parametrize(
    ("numbered_by", "seen"),
    [("counter", {"late", "early"}), ("sequence", {"early"})],
    ids=["counter", "sequence"],
)
async def test_a_change_that_is_committed_late_is_not_overtaken(
    numbered_by: str, seen: set[str], database: str
) -> None:
    """The first of two changes is committed after a poll. With a sequence the poller would never see it."""
    put = schema.PUT_BLOCK
    if numbered_by == "sequence":
        counter = put[put.index("(") + 1 : put.index(")")]
        assert counter.startswith("UPDATE proxyproto_rs.block_revision")
        put = put.replace(counter, "SELECT nextval('proxyproto_rs.trap') AS revision")

    async with (
        opened(database) as store,
        postgres.connected(database) as other,
        postgres.connected(database) as watcher,
    ):
        await watcher.execute("CREATE SEQUENCE proxyproto_rs.trap")

        async def write(connection: Any, value: str) -> None:
            await connection.fetchval(put, value, *schema.block_row(user(value)))

        async with postgres.connected(database) as third:
            late = other.transaction()
            await late.start()
            await write(other, "late")
            putting = asyncio.create_task(write(third, "early"))
            await until(lambda: waits_or_is_done(watcher, putting))
            first = await store.blocks(0)
            await late.commit()
            await putting
            second = await store.blocks(first.revision)
        assert {block.value for block in (*first.changed, *second.changed)} == seen


async def waits_or_is_done(watcher: Any, task: asyncio.Task[Any]) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return task.done() or await watcher.fetchval(waiting) > 0


# changes are told


async def test_a_change_is_told_to_the_other_nodes_only(database: str) -> None:
    async with opened(database) as here, opened(database) as there:
        heard_here, heard_there = asyncio.Event(), asyncio.Event()
        here.when_blocks_change(heard_here.set)
        there.when_blocks_change(heard_there.set)
        for heard in (heard_here, heard_there):  # each listens now
            await asyncio.wait_for(heard.wait(), WAIT)
            heard.clear()
        await here.put_block(user("u"))
        await asyncio.wait_for(heard_there.wait(), WAIT)
        heard_there.clear()
        await here.delete_block("USERNAME:u")
        await asyncio.wait_for(heard_there.wait(), WAIT)
        assert not heard_here.is_set()
        await there.put_block(user("u"))
        await asyncio.wait_for(heard_here.wait(), WAIT)


async def test_a_node_listens_again_after_the_connection_was_lost(
    database: str, postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyproto_rs.mqtt.store.postgresql.announcements._AGAIN_SECONDS", 0.01)
    async with (
        postgres.linked(postgres_server) as link,
        opened(postgres_server.dsn(link.directory)) as store,
        opened(database) as other,
    ):
        heard = asyncio.Event()
        store.when_blocks_change(heard.set)
        await asyncio.wait_for(heard.wait(), WAIT)
        heard.clear()
        link.cut()
        await asyncio.wait_for(heard.wait(), WAIT)  # it listens again, and something may have been missed
        heard.clear()
        await other.put_block(user("u"))
        await asyncio.wait_for(heard.wait(), WAIT)


# the database goes away


async def test_a_database_that_is_away_is_told_in_one_line_and_is_used_again(
    database: str, postgres_server: postgres.Server
) -> None:
    async with postgres.linked(postgres_server) as link, opened(postgres_server.dsn(link.directory)) as store:
        await store.put_block(user("u"))
        link.accepts = False
        link.cut()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.upsert_unauthorized([row()]),
            lambda: store.clear_unauthorized("dev-7", "203.0.113.7"),
            lambda: store.find_unauthorized(UnauthorizedQuery()),
            lambda: store.delete_unauthorized(None, None),
            lambda: store.purge_unauthorized(0, 10),
            lambda: store.put_block(user("v")),
            lambda: store.delete_block("USERNAME:u"),
            lambda: store.blocks(0),
            lambda: store.add_failure("203.0.113.7", 1, 10),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable) as wrong:
                await call()
            assert str(wrong.value).startswith("store postgresql:///postgres: ")
            assert "\n" not in str(wrong.value)
        link.accepts = True
        for call in calls:
            await call()


async def test_closing_does_not_wait_for_a_database_that_is_away(
    database: str, postgres_server: postgres.Server
) -> None:
    async with postgres.linked(postgres_server) as link:
        store = await PostgresStore.open(postgres_server.dsn(link.directory))
        link.accepts = False
        link.cut()
        await asyncio.wait_for(store.close(), WAIT)


async def test_a_server_that_restarts(database: str, postgres_server: postgres.Server) -> None:
    async with opened(database) as store:
        await store.upsert_unauthorized([row()])
        await asyncio.to_thread(postgres_server.stop)
        with pytest.raises(StoreUnavailable):
            await store.upsert_unauthorized([row()])
        await asyncio.to_thread(postgres_server.start)
        await store.upsert_unauthorized([row()])
        assert await attempts(store) == 2


async def test_a_server_that_only_reads(database: str) -> None:
    """A standby after a failover: what it does not take may be taken later."""
    async with opened(database) as store, postgres.connected(database) as connection:
        await store.blocks(0)
        await connection.execute("ALTER ROLE tests SET default_transaction_read_only = on")
        try:
            with pytest.raises(
                StoreError, match=r"cannot be opened: cannot execute .* read-only transaction"
            ):
                await PostgresStore.open(database)
        finally:
            await connection.execute("SET transaction_read_only = off")
            await connection.execute("ALTER ROLE tests RESET default_transaction_read_only")


# opening


async def test_nodes_that_start_together_make_the_tables_once(database: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(database) for _ in range(6)))
    for store in stores:
        await store.upsert_unauthorized([row()])
    assert await attempts(stores[0]) == 6
    await asyncio.gather(*(store.close() for store in stores))


async def test_tables_of_a_newer_version(database: str) -> None:
    async with opened(database), postgres.connected(database) as connection:
        await connection.execute("UPDATE proxyproto_rs.schema_version SET version = 99")
    said = (
        f"store postgresql:///postgres cannot be opened: was written by a newer version"
        f" (schema 99, this one knows {schema.VERSION}): update proxyproto_rs on this node"
    )
    for attempt in (open_store, check_store):
        with pytest.raises(StoreError) as wrong:
            await attempt(database)
        assert str(wrong.value) == said


async def test_a_migration_goes_on_from_the_version_that_is_there(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database) as store:
        await store.upsert_unauthorized([row()])
    steps = (*schema.MIGRATIONS, "CREATE TABLE proxyproto_rs.added (x int)")
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    monkeypatch.setattr(schema, "VERSION", len(steps))
    for _ in range(2):
        async with opened(database) as store, postgres.connected(database) as connection:
            assert await connection.fetchval("SELECT version FROM proxyproto_rs.schema_version") == len(steps)
            assert await connection.fetchval("SELECT count(*) FROM proxyproto_rs.added") == 0
            assert await attempts(store) == 1


@pytest.mark.parametrize("version", range(1, schema.VERSION))
async def test_tables_of_every_version_become_those_of_the_newest(
    database: str, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    made = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'proxyproto_rs' ORDER BY 1"
    async with postgres.connected(database) as connection:
        assert await schema.migrate(connection) == 0
        wanted = await connection.fetch(made)
        await connection.execute("DROP SCHEMA proxyproto_rs CASCADE")
        with monkeypatch.context() as older:
            older.setattr(schema, "VERSION", version)
            assert await schema.migrate(connection) == 0
        assert await schema.migrate(connection) == version
        assert await schema.migrate(connection) == schema.VERSION
        assert await connection.fetch(made) == wanted


async def test_checking_makes_nothing(database: str) -> None:
    await check_store(database)
    async with postgres.connected(database) as connection:
        assert not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname ~ 'proxy')"
        )


UNUSABLE = [
    ("nobody-listens", "postgresql://u:hunter2@127.0.0.1:1/d", "postgresql://127.0.0.1:1/d"),
    ("sslmode", "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=never", "postgresql://127.0.0.1:1/d"),
    ("a-slash-in-the-password", "postgresql://u:hunter2/x@127.0.0.1:1/d", "postgresql://127.0.0.1:1/d"),
    ("no-port", "postgresql://u:hunter2@127.0.0.1:hunter2/d", None),
]


@pytest.mark.parametrize(
    ("dsn", "named"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE]
)
async def test_a_store_that_cannot_be_opened_is_one_line_without_a_secret(
    dsn: str, named: str | None
) -> None:
    for attempt in (open_store, check_store):
        with pytest.raises(StoreError) as wrong:
            await attempt(dsn)
        text = str(wrong.value)
        assert text.startswith("store postgresql://")
        assert named is None or text.startswith(f"store {named} cannot be opened: ")
        assert "\n" not in text
        assert "hunter2" not in text.replace("127.0.0.1:hunter2", "")


SHOWN = [
    ("postgresql://db/x", "postgresql://db/x"),
    ("postgresql://u@db/x?password=p", "postgresql://db/x"),
    ("postgresql://u:p@db1:5432,db2/x?sslmode=require", "postgresql://db1:5432,db2/x"),
    ("postgresql://u:p@q/r?s#t@db/x", "postgresql://db/x"),
]


@pytest.mark.parametrize(("dsn", "said"), SHOWN, ids=[dsn for dsn, _ in SHOWN])
def test_only_hosts_and_database_are_shown(dsn: str, said: str) -> None:
    assert shown(dsn) == said


def test_a_connection_that_is_lost_in_the_middle_of_a_call_is_told_in_plain_words() -> None:
    """asyncpg says so where a server shuts down."""
    lost = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    assert (
        str(not_opened("postgresql://db/x", lost))
        == "store postgresql://db/x cannot be opened: the connection was lost"
    )


async def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if ".store.postgresql" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for attempt in (open_store, check_store):
        with pytest.raises(StoreError) as wrong:
            await attempt("postgresql://u:hunter2@db/x")
        assert str(wrong.value) == (
            'store postgresql:// needs asyncpg: pip install "proxyproto_rs[postgres]"'
        )


async def test_a_file_names_the_store(database: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"{database}\n")
    await check_store(None, str(tmp_path / "dsn"))
    store = await open_store(None, str(tmp_path / "dsn"))
    assert isinstance(store, PostgresStore)
    await store.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "cannot be read: is not UTF-8 text"),
        (b"hunter2", "must hold sqlite:PATH or postgresql://USER@HOST/DATABASE"),
    ],
    ids=["missing", "binary", "no-store"],
)
async def test_a_file_that_names_no_store(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "dsn"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as wrong:
        await open_store(None, str(path))
    assert str(wrong.value) == f"store_file {path} {said}"


# what PostgreSQL cannot keep


async def test_texts_that_postgresql_cannot_keep_cost_no_other_row(database: str) -> None:
    async with opened(database) as store:
        await store.upsert_unauthorized([row("a\0b", username="\ud800"), row("whole")])
        page = await store.find_unauthorized(UnauthorizedQuery(client_id="a\0"))
        assert [(entry.client_id, entry.username) for entry in page.data] == [("a\ufffdb", "?")]
        await store.clear_unauthorized("a\0b", "203.0.113.7")
        assert await attempts(store) == 1


async def test_writers_that_are_gone_for_long_are_forgotten(database: str) -> None:
    async with opened(database), postgres.connected(database) as connection:
        await connection.execute(
            "INSERT INTO proxyproto_rs.written_batch VALUES ($1, 'unauthorized', 7, now() - interval '31 days')",
            uuid.uuid4(),
        )
        async with opened(database):
            assert await connection.fetchval("SELECT count(*) FROM proxyproto_rs.written_batch") == 4
