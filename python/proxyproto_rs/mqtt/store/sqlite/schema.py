"""The three tables in SQLite, and the conversion between rows and records."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ...model.records import BlockedClient, UnauthorizedClient

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

VERSION = 1  # PRAGMA user_version

SCHEMA = """
CREATE TABLE IF NOT EXISTS unauthorized_client (
    client_id TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    ts INTEGER NOT NULL,
    username TEXT,
    password_provided INTEGER NOT NULL,
    tls_used INTEGER NOT NULL,
    reason TEXT NOT NULL,
    first_ts INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    listener TEXT NOT NULL,
    proxy_address TEXT,
    address_source TEXT NOT NULL,
    port INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    PRIMARY KEY (client_id, ip_address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unauthorized_client_ts ON unauthorized_client (ts);
CREATE INDEX IF NOT EXISTS unauthorized_client_ip_address ON unauthorized_client (ip_address);
CREATE INDEX IF NOT EXISTS unauthorized_client_reason_code ON unauthorized_client (reason_code);
CREATE TABLE IF NOT EXISTS blocked_client (
    key TEXT PRIMARY KEY,
    type TEXT,
    value TEXT,
    expiration_time INTEGER NOT NULL DEFAULT 0,
    description TEXT,
    regex_match_target TEXT,
    created_at INTEGER NOT NULL DEFAULT 0,
    created_by TEXT,
    hits INTEGER NOT NULL DEFAULT 0,
    last_hit_at INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blocked_client_revision ON blocked_client (revision);
CREATE TABLE IF NOT EXISTS login_failure (
    network TEXT NOT NULL,
    ts INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS login_failure_network ON login_failure (network);
CREATE INDEX IF NOT EXISTS login_failure_ts ON login_failure (ts);
"""

_CLIENT = tuple(field.name for field in dataclasses.fields(UnauthorizedClient))
_BLOCK = tuple(field.name for field in dataclasses.fields(BlockedClient) if field.name != "status")
_KEPT = ("client_id", "ip_address", "first_ts", "attempts")

UPSERT_CLIENT = (
    f"INSERT INTO unauthorized_client ({', '.join(_CLIENT)}) VALUES ({', '.join('?' * len(_CLIENT))})"  # noqa: S608
    " ON CONFLICT (client_id, ip_address) DO UPDATE SET attempts = attempts + excluded.attempts, "
    + ", ".join(f"{name} = excluded.{name}" for name in _CLIENT if name not in _KEPT)
)
SELECT_CLIENT = f"SELECT {', '.join(_CLIENT)} FROM unauthorized_client"  # noqa: S608 (names of our own fields)
PUT_BLOCK = (
    f"INSERT OR REPLACE INTO blocked_client (key, {', '.join(_BLOCK)})"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(_BLOCK) + 1))})"
)
SELECT_BLOCKS = (
    f"SELECT key, removed, {', '.join(_BLOCK)} FROM blocked_client WHERE revision > ? ORDER BY revision"  # noqa: S608
)


def client_row(client: UnauthorizedClient) -> tuple[Any, ...]:
    """Return a record as UPSERT_CLIENT takes it."""
    return tuple(getattr(client, name) for name in _CLIENT)


def client_of(row: Sequence[Any]) -> UnauthorizedClient:
    """Return a row of SELECT_CLIENT as a record."""
    values = dict(zip(_CLIENT, row, strict=True))
    values["password_provided"] = bool(values["password_provided"])
    values["tls_used"] = bool(values["tls_used"])
    return UnauthorizedClient(**values)


def block_row(block: BlockedClient) -> tuple[Any, ...]:
    """Return a record as PUT_BLOCK takes it."""
    return (block.key, *(getattr(block, name) for name in _BLOCK))


def block_of(row: Sequence[Any]) -> BlockedClient:
    """Return a row of SELECT_BLOCKS, without its first two columns, as a record."""
    return BlockedClient(**dict(zip(_BLOCK, row, strict=True)))


def create(connection: sqlite3.Connection) -> int:
    """Make the tables, or bring them up to date, while no other process can. Return the version before; 0 is none.

    Raises ValueError for a file of a newer version.
    """
    if refuse_newer(connection) == VERSION:
        return VERSION
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = refuse_newer(connection)  # another process may have been faster
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return version


def refuse_newer(connection: sqlite3.Connection) -> int:
    """Return the version of a file; 0 is none. Raises ValueError for a newer one."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise ValueError(f"was written by a newer version (schema {version}, this one knows {VERSION})")
    return version
