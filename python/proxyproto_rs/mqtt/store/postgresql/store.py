"""The store in a PostgreSQL database."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence

from ...model.paging import Page
from ...model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from ..protocol import BlockChanges
from . import schema
from .announcements import Announcements
from .clock import DatabaseClock
from .database import Database
from .gathered import Gathered
from .ledger import Ledger
from .nodes import PostgresNodes
from .query import order, where
from .schema import Connection

_TOMBSTONES = 10_000  # removed blocks that are remembered for nodes that poll
_FAILURES = 0x70726F787A  # the key of the advisory lock: failures are counted one node after the other

_Failure = tuple[str, int, int]  # network, now, window

# No two deletions wait for each other: they lock their rows in the order of the keys, as every writer does.
_CLEAR = (
    "DELETE FROM proxyproto_rs.unauthorized_client WHERE (client_id, ip_address) IN"
    " (SELECT client_id, ip_address FROM proxyproto_rs.unauthorized_client"
    " JOIN unnest($1::text[], $2::text[]) AS gone (id, ip) ON client_id = id AND ip_address = ip"
    " ORDER BY client_id, ip_address FOR UPDATE OF unauthorized_client)"
)
_DELETE = (
    "DELETE FROM proxyproto_rs.unauthorized_client WHERE (client_id, ip_address) IN"
    " (SELECT client_id, ip_address FROM proxyproto_rs.unauthorized_client"
    " WHERE ($1::text IS NULL OR client_id = $1) AND ($2::text IS NULL OR ip_address = $2)"
    " ORDER BY client_id, ip_address FOR UPDATE)"
)
# A purge waits for nobody. A row that is being written has become new, or goes with the next purge.
_PURGE_OLD = (
    "DELETE FROM proxyproto_rs.unauthorized_client WHERE (client_id, ip_address) IN"
    " (SELECT client_id, ip_address FROM proxyproto_rs.unauthorized_client"
    " WHERE ts < $1 FOR UPDATE SKIP LOCKED)"
)
_PURGE_MANY = (
    "DELETE FROM proxyproto_rs.unauthorized_client WHERE (client_id, ip_address) IN"
    " (SELECT client_id, ip_address FROM proxyproto_rs.unauthorized_client"
    " ORDER BY ts, client_id, ip_address LIMIT $1 FOR UPDATE SKIP LOCKED)"
)
_FORGET_TOMBSTONES = (
    "DELETE FROM proxyproto_rs.blocked_client WHERE key IN"
    " (SELECT key FROM proxyproto_rs.blocked_client WHERE removed AND revision <="
    " (SELECT revision FROM proxyproto_rs.blocked_client WHERE removed ORDER BY revision DESC LIMIT 1 OFFSET $1)"
    " FOR UPDATE SKIP LOCKED)"
)
_FORGET_FAILURES = "DELETE FROM proxyproto_rs.login_failure WHERE ts <= $1"
_ADD_FAILURE = "INSERT INTO proxyproto_rs.login_failure (network, ts) VALUES ($1, $2)"
_COUNT_FAILURES = "SELECT count(*) FROM proxyproto_rs.login_failure WHERE network = $1"


class PostgresStore:
    """Implements `store.Store`, whose docstrings say what each method does. `open` makes it."""

    def __init__(self, database: Database, writer: uuid.UUID) -> None:
        self._database = database
        self._writer = str(writer)
        self._rows: Ledger[UnauthorizedClient] = Ledger(writer, "unauthorized")
        self._failures: Ledger[_Failure] = Ledger(writer, "failure")
        self._upserts = Gathered(self._upsert, limit=100)
        self._clears = Gathered(self._clear, limit=10_000)
        self._counts = Gathered(self._count, limit=1000)
        self._announcements = Announcements(database.connect)
        self.clock: DatabaseClock = DatabaseClock()
        self.nodes: PostgresNodes = PostgresNodes(database, self._announcements, self.clock)

    @classmethod
    async def open(cls, dsn: str) -> PostgresStore:
        """Connect, and make the tables or bring them up to date. `dsn` is a connection URI. Raises StoreError."""
        store = cls(await Database.open(dsn), uuid.uuid4())
        try:
            await store._database.run(store.clock.measure)
            await store._database.run(store._rows.enter)
            await store._database.run(store._failures.enter)
        except BaseException:
            await store.close()
            raise
        return store

    async def upsert_unauthorized(self, rows: Sequence[UnauthorizedClient]) -> None:
        """Add rows, or update known ones."""
        await self._upserts.call(tuple(rows))

    async def clear_unauthorized(self, client_id: str, ip: str) -> None:
        """Delete the row of a client that has logged in."""
        await self._clears.call((schema.text(client_id), schema.text(ip)))

    async def find_unauthorized(self, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
        """Find a page of rows."""
        clause, values = where(query)

        async def find(connection: Connection) -> Page[UnauthorizedClient]:
            # Both statements must see the same rows.
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                total = await connection.fetchval(
                    f"SELECT count(*) FROM proxyproto_rs.unauthorized_client{clause}",  # noqa: S608
                    *values,
                )
                rows = await connection.fetch(
                    f"{schema.SELECT_CLIENT}{clause}{order(query)} LIMIT {int(query.page_size)}"
                    f" OFFSET {int(query.page * query.page_size)}",
                    *values,
                )
            return query.page_of(tuple(schema.client_of(tuple(row)) for row in rows), total)

        return await self._database.run(find)

    async def delete_unauthorized(self, client_id: str | None, ip: str | None) -> int:
        """Delete rows by client id and address."""
        wanted = [None if value is None else schema.text(value) for value in (client_id, ip)]

        async def delete(connection: Connection) -> int:
            return _affected(await connection.execute(_DELETE, *wanted))

        return await self._database.run(delete)

    async def purge_unauthorized(self, before: int, max_rows: int) -> int:
        """Delete rows that are too old or too many."""

        async def purge(connection: Connection) -> int:
            gone = _affected(await connection.execute(_PURGE_OLD, before))
            rows = await connection.fetchval("SELECT count(*) FROM proxyproto_rs.unauthorized_client")
            if rows > max_rows:
                gone += _affected(await connection.execute(_PURGE_MANY, rows - max_rows))
            return gone

        return await self._database.run(purge)

    async def put_block(self, block: BlockedClient) -> BlockedClient:
        """Add or replace a block."""

        async def put(connection: Connection) -> BlockedClient:
            revision = await connection.fetchval(schema.PUT_BLOCK, self._writer, *schema.block_row(block))
            return dataclasses.replace(block, revision=revision)

        return await self._database.run(put)

    async def delete_block(self, key: str) -> bool:
        """Delete a block, and remember that it was removed."""

        async def delete(connection: Connection) -> bool:
            there = bool(await connection.fetch(schema.DELETE_BLOCK, self._writer, schema.text(key)))
            if there:
                await connection.execute(_FORGET_TOMBSTONES, _TOMBSTONES)
            return there

        return await self._database.run(delete)

    async def blocks(self, since_revision: int) -> BlockChanges:
        """Return the blocks that changed after a revision."""

        async def read(connection: Connection) -> BlockChanges:
            revision, changed, removed = since_revision, [], []
            for key, gone, *row in await connection.fetch(schema.SELECT_BLOCKS, since_revision):
                block = schema.block_of(row)
                revision = max(revision, block.revision)
                if gone:
                    removed.append(key)
                else:
                    changed.append(block)
            return BlockChanges(revision, tuple(changed), tuple(removed))

        return await self._database.run(read)

    def when_blocks_change(self, told: Callable[[], None]) -> None:
        """Call `told` soon after another node has changed a block."""

        def heard(writer: str | None) -> None:
            if writer != self._writer:
                told()

        self._announcements.hear("proxyproto_rs_blocks", heard)

    async def add_failure(self, network: str, now: int, window: int) -> int:
        """Count a wrong login from a network."""
        return await self._counts.call((network, now, window))

    async def close(self) -> None:
        """Write what waits, and close the connections."""
        for waiting in (self._upserts, self._clears, self._counts):
            await waiting.finish()
        await self._announcements.close()
        await self.nodes.close()
        await self._database.close()

    # what is written together

    async def _upsert(self, calls: list[tuple[UnauthorizedClient, ...]]) -> list[None]:
        rows = [row for call in calls for row in call]

        async def upsert(connection: Connection) -> None:
            async with self._rows.batch(connection, rows) as new:
                incoming = schema.incoming_rows(row for row, fresh in zip(rows, new, strict=True) if fresh)
                await connection.copy_records_to_table(
                    schema.INCOMING, schema_name="pg_temp", records=incoming, columns=schema.INCOMING_COLUMNS
                )
                await connection.execute(schema.MERGE_INCOMING)

        if rows:
            await self._database.run(upsert)
        return [None] * len(calls)

    async def _clear(self, keys: list[tuple[str, str]]) -> list[None]:
        async def clear(connection: Connection) -> None:
            await connection.execute(_CLEAR, [key[0] for key in keys], [key[1] for key in keys])

        await self._database.run(clear)
        return [None] * len(keys)

    async def _count(self, failures: list[_Failure]) -> list[int]:
        async def count(connection: Connection) -> list[int]:
            counts = []
            async with self._failures.batch(connection, failures) as new:
                # Two nodes that count at the same time would not see each other's, and the sum would be too small.
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _FAILURES)
                for (network, now, window), fresh in zip(failures, new, strict=True):
                    # Old failures of all networks go, so the table stays small.
                    await connection.execute(_FORGET_FAILURES, now - window)
                    if fresh:
                        await connection.execute(_ADD_FAILURE, network, now)
                    counts.append(int(await connection.fetchval(_COUNT_FAILURES, network)))
            return counts

        return await self._database.run(count)


def _affected(tag: str) -> int:
    """Return the number in a command tag such as "DELETE 3"."""
    return int(tag.rpartition(" ")[2])
