"""The store in one SQLite file in WAL mode. One thread writes, in batches, and one reads."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from ..protocol import BlockChanges, StoreError
from . import schema
from .query import order, where
from .worker import SqliteWorker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from ...model.paging import Page
    from ...model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery

_TOMBSTONES = 10_000  # removed blocks that are remembered for nodes that poll


class SqliteStore:
    """Implements `store.Store`, whose docstrings say what each method does. `path` is a file, or ":memory:".

    Raises StoreError if the file cannot be made, opened or written.
    """

    def __init__(self, path: str) -> None:
        self._writer = SqliteWorker(path, "mqtt-store-write", begin="BEGIN IMMEDIATE")
        try:
            self._writer.call_now(_writable)  # find out now, and not at the first refused client
            # A database in memory belongs to one connection.
            self._reader = self._writer if path == ":memory:" else SqliteWorker(path, "mqtt-store-read")
        except StoreError:
            self._writer.stop()
            raise

    @property
    def clock(self) -> Callable[[], float]:
        """The time of this machine: processes that share a file are on one."""
        return time.time

    @property
    def nodes(self) -> None:
        """None: the sessions of another process are not known here."""

    async def upsert_unauthorized(self, rows: Sequence[UnauthorizedClient]) -> None:
        """Add rows, or update known ones."""
        values = [schema.client_row(row) for row in rows]
        await self._writer.call(lambda db: _upsert(db, values))

    async def clear_unauthorized(self, client_id: str, ip: str) -> None:
        """Delete the row of a client that has logged in."""
        await self._writer.call(lambda db: _clear(db, client_id, ip))

    async def find_unauthorized(self, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
        """Find a page of rows."""
        return await self._reader.call(lambda db: _find(db, query))

    async def delete_unauthorized(self, client_id: str | None, ip: str | None) -> int:
        """Delete rows by client id and address."""
        return await self._writer.call(lambda db: _delete(db, client_id, ip))

    async def purge_unauthorized(self, before: int, max_rows: int) -> int:
        """Delete rows that are too old or too many."""
        return await self._writer.call(lambda db: _purge(db, before, max_rows))

    async def put_block(self, block: BlockedClient) -> BlockedClient:
        """Add or replace a block."""
        return await self._writer.call(lambda db: _put_block(db, block))

    async def delete_block(self, key: str) -> bool:
        """Delete a block, and remember that it was removed."""
        return await self._writer.call(lambda db: _delete_block(db, key))

    async def blocks(self, since_revision: int) -> BlockChanges:
        """Return the blocks that changed after a revision."""
        return await self._reader.call(lambda db: _blocks(db, since_revision))

    def when_blocks_change(self, told: Callable[[], None]) -> None:
        """Do nothing: SQLite does not tell of other processes' changes."""

    async def add_failure(self, network: str, now: int, window: int) -> int:
        """Count a wrong login from a network."""
        return await self._writer.call(lambda db: _add_failure(db, network, now, window))

    async def close(self) -> None:
        """Write what waits, and close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.stop)
        if self._reader is not self._writer:
            await loop.run_in_executor(None, self._reader.stop)


def _writable(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.execute("COMMIT")


def _find(db: sqlite3.Connection, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
    clause, values = where(query)
    (total,) = db.execute(f"SELECT count(*) FROM unauthorized_client{clause}", values).fetchone()  # noqa: S608
    rows = db.execute(
        f"{schema.SELECT_CLIENT}{clause}{order(query)} LIMIT ? OFFSET ?",
        [*values, query.page_size, query.page * query.page_size],
    )
    return query.page_of(tuple(schema.client_of(row) for row in rows), total)


def _upsert(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    db.executemany(schema.UPSERT_CLIENT, rows)


def _clear(db: sqlite3.Connection, client_id: str, ip: str) -> None:
    # This runs for every login, so it uses the primary key.
    db.execute("DELETE FROM unauthorized_client WHERE client_id = ? AND ip_address = ?", (client_id, ip))


def _delete(db: sqlite3.Connection, client_id: str | None, ip: str | None) -> int:
    return db.execute(
        "DELETE FROM unauthorized_client"
        " WHERE (?1 IS NULL OR client_id = ?1) AND (?2 IS NULL OR ip_address = ?2)",
        (client_id, ip),
    ).rowcount


def _purge(db: sqlite3.Connection, before: int, max_rows: int) -> int:
    gone = db.execute("DELETE FROM unauthorized_client WHERE ts < ?", (before,)).rowcount
    (rows,) = db.execute("SELECT count(*) FROM unauthorized_client").fetchone()
    if rows > max_rows:
        gone += db.execute(
            "DELETE FROM unauthorized_client WHERE (client_id, ip_address) IN"
            " (SELECT client_id, ip_address FROM unauthorized_client ORDER BY ts LIMIT ?)",
            (rows - max_rows,),
        ).rowcount
    return gone


def _next_revision(db: sqlite3.Connection) -> int:
    (newest,) = db.execute("SELECT coalesce(max(revision), 0) FROM blocked_client").fetchone()
    return int(newest) + 1


def _put_block(db: sqlite3.Connection, block: BlockedClient) -> BlockedClient:
    stored = dataclasses.replace(block, revision=_next_revision(db))
    db.execute(schema.PUT_BLOCK, schema.block_row(stored))
    return stored


def _delete_block(db: sqlite3.Connection, key: str) -> bool:
    there = db.execute(
        "UPDATE blocked_client SET removed = 1, revision = ? WHERE key = ? AND removed = 0",
        (_next_revision(db), key),
    ).rowcount
    db.execute(
        "DELETE FROM blocked_client WHERE removed = 1 AND revision <="
        " (SELECT revision FROM blocked_client WHERE removed = 1 ORDER BY revision DESC LIMIT 1 OFFSET ?)",
        (_TOMBSTONES,),
    )
    return there > 0


def _blocks(db: sqlite3.Connection, since: int) -> BlockChanges:
    revision, changed, removed = since, [], []
    for key, gone, *row in db.execute(schema.SELECT_BLOCKS, (since,)):
        block = schema.block_of(row)
        revision = max(revision, block.revision)
        if gone:
            removed.append(key)
        else:
            changed.append(block)
    return BlockChanges(revision, tuple(changed), tuple(removed))


def _add_failure(db: sqlite3.Connection, network: str, now: int, window: int) -> int:
    # Old failures of all networks go, so the table stays small.
    db.execute("DELETE FROM login_failure WHERE ts <= ?", (now - window,))
    db.execute("INSERT INTO login_failure (network, ts) VALUES (?, ?)", (network, now))
    (count,) = db.execute("SELECT count(*) FROM login_failure WHERE network = ?", (network,)).fetchone()
    return int(count)
