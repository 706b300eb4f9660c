"""The connections to one database. Every error of theirs becomes a StoreError that shows no secret."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from ..examined import Examined
from ..protocol import StoreError, StoreUnavailable
from . import examining, schema
from .schema import Connection

Result = TypeVar("Result")

_logger = logging.getLogger("proxyproto_rs.mqtt")

_CONNECTIONS = 4
_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 10.0
_MIGRATE_SECONDS = 60.0  # another node may be migrating
_CLOSE_SECONDS = 5.0
_SLOW_SECONDS = 1.0
_SLOW_AGAIN_SECONDS = 60.0  # to the next line about it
_REPEATS = 3  # of a transaction that the server has rolled back for the sake of another

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_TIMEOUTS = (asyncio.TimeoutError, TimeoutError)  # two classes before Python 3.11
ERRORS = (*_FAILURES, *_TIMEOUTS, ValueError, OverflowError)
"""What asyncpg raises, for a server that does not answer and for a value that does not fit."""

_REMEDIES = {
    "25006": "this server only reads: name the one that writes in `store`, or all as HOST1,HOST2",
    "28P01": "look at the password in PGPASSFILE, store_file or ${NAME}",
    "3D000": "let an administrator create the database",
    "42501": examining.MAKE_TABLES,
    "53100": "the disk of the database is full: make room there",
    "53300": "raise max_connections: each node needs 6 connections",
}
"""What an operator does about an error, by SQLSTATE."""

_PASSING = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that say nothing about the statement: another time, or another server, may take it."""


class Database:
    """A pool of connections. `open` makes it."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[Any]) -> None:
        self._dsn = dsn
        self._pool = pool
        self._closed = False
        self._slow_told_at = -_SLOW_AGAIN_SECONDS

    @classmethod
    async def open(cls, dsn: str) -> Database:
        """Connect, and bring the tables up to date. Raises StoreError."""
        await migrate(dsn)
        return await cls.connected(dsn)

    @classmethod
    async def connected(cls, dsn: str, connections: int = _CONNECTIONS) -> Database:
        """Connect to a database whose tables are up to date. Raises StoreError."""
        try:
            pool = await asyncpg.create_pool(
                dsn,
                target_session_attrs=_wanted(dsn),
                min_size=0,  # asyncpg logs a traceback each time that it fails to restore a larger number
                max_size=connections,
                timeout=_CONNECT_SECONDS,
                command_timeout=_COMMAND_SECONDS,
                init=_prepare,
                reset=_keep,
            )
        except ERRORS as wrong:
            raise not_opened(dsn, wrong) from None
        return cls(dsn, pool)

    async def another(self, connections: int) -> Database:
        """Connect once more to the same database, for what must not wait for the others. Raises StoreError."""
        return await self.connected(self._dsn, connections)

    async def run(self, operation: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run an operation on a connection. Run it again if the server has rolled it back for the sake of another.

        Raises StoreUnavailable if the database does not answer, and StoreError for all else.
        """
        if self._closed:
            raise StoreError(f"store {shown(self._dsn)} is closed")
        since = time.monotonic()
        for repeat in range(_REPEATS + 1):
            try:
                async with self._pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                    result = await operation(connection)  # type: ignore[arg-type]  # the pool wraps it
                self._tell_if_slow(since)
                return result
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as wrong:
                if repeat == _REPEATS:
                    raise self._failed(wrong) from None
            except asyncpg.ReadOnlySQLTransactionError as wrong:
                # The server was made a standby. The next connections look for the one that writes now.
                await self._pool.expire_connections()
                raise self._failed(wrong) from None
            except ERRORS as wrong:
                raise self._failed(wrong) from None
        raise AssertionError("the last turn returns or raises")

    async def connect(self) -> Connection:
        """Return a connection of its own, for LISTEN. Raises what asyncpg raises."""
        return await _connect(self._dsn)

    async def close(self) -> None:
        """Close all connections. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except ERRORS:
            self._pool.terminate()

    def _tell_if_slow(self, since: float) -> None:
        now = time.monotonic()
        if now - since > _SLOW_SECONDS and now - self._slow_told_at >= _SLOW_AGAIN_SECONDS:
            self._slow_told_at = now
            _logger.warning(
                "store %s is slow: a call took %.1f s; look at the network to it and at its load",
                shown(self._dsn),
                now - since,
            )

    def _failed(self, wrong: BaseException) -> StoreError:
        kind = StoreUnavailable if _passes(wrong) else StoreError
        return kind(f"store {shown(self._dsn)}: {_line(wrong)}")


async def migrate(dsn: str) -> int:
    """Make the tables, or bring them up to date. Return the version before; 0 is none. Raises StoreError."""
    try:
        connection = await _connect(dsn, command_timeout=_MIGRATE_SECONDS)
        try:
            return await schema.migrate(connection)
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)
    except ERRORS as wrong:
        raise not_opened(dsn, wrong) from None


async def examine(dsn: str) -> Examined:
    """Connect, and look at everything. It changes nothing. Raises StoreError."""
    try:
        connection = await _connect(dsn)
        try:
            return await examining.examine(connection, shown(dsn))
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)
    except ERRORS as wrong:
        raise not_opened(dsn, wrong) from None


def not_opened(dsn: str, wrong: Exception) -> StoreError:
    """Return the error of a store that cannot be opened."""
    return StoreError(f"store {shown(dsn)} cannot be opened: {_line(wrong)}")


async def check(dsn: str) -> None:
    """Connect, and look at the version of the tables. It makes nothing. Raises StoreError."""
    try:
        connection = await _connect(dsn)
        try:
            await schema.refuse_newer(connection)
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)
    except ERRORS as wrong:
        raise not_opened(dsn, wrong) from None


def shown(dsn: str) -> str:
    """Return the hosts and the database of a connection URI, without user, password and options.

    A password that is not percent-encoded may hold any sign. So everything up to the last "@" is left out.
    """
    _, _, rest = dsn.partition("://")
    return "postgresql://" + rest.rpartition("@")[2].partition("?")[0]


async def _connect(dsn: str, command_timeout: float = _COMMAND_SECONDS) -> Connection:
    return await asyncpg.connect(
        dsn,
        timeout=_CONNECT_SECONDS,
        command_timeout=command_timeout,
        target_session_attrs=_wanted(dsn),
    )


def _wanted(dsn: str) -> SessionAttribute | None:
    """Of several servers take the one that writes, unless the URI says otherwise. A standby is of no use to us.

    Of one server nothing is asked: if it only reads, its own words say so.
    """
    if (
        "," in dsn.rpartition("@")[2]
        and "target_session_attrs" not in dsn
        and "PGTARGETSESSIONATTRS" not in os.environ
    ):
        return SessionAttribute.read_write
    return None


async def _prepare(connection: Any) -> None:
    # A node that vanishes in the middle of a transaction must not hold the others up.
    await connection.execute("SET idle_in_transaction_session_timeout = 10000")
    # A page needs another plan for each filter, and compiling one takes longer than running it.
    await connection.execute("SET plan_cache_mode = force_custom_plan; SET jit = off")
    await connection.execute(schema.CREATE_INCOMING)


async def _keep(connection: Any) -> None:
    """Leave a connection as it is when it goes back: `_prepare` has set what all operations need."""


def _passes(wrong: BaseException) -> bool:
    if isinstance(wrong, asyncpg.PostgresError):
        return (wrong.sqlstate or "")[:2] in _PASSING
    # asyncpg's InterfaceError is a lost connection, or a value that does not fit, which is a ValueError too.
    return not isinstance(wrong, (ValueError, OverflowError))


def _line(wrong: BaseException) -> str:
    if isinstance(wrong, _TIMEOUTS):
        return "the database does not answer"
    if isinstance(wrong, asyncpg.InternalClientError):
        return "the connection was lost"  # asyncpg's own text tells of its states
    if isinstance(wrong, (ConnectionError, FileNotFoundError, PermissionError)) and wrong.errno:
        return os.strerror(wrong.errno)  # asyncio's own text names no reason
    if isinstance(wrong, OSError):
        return wrong.strerror or str(wrong).partition("\n")[0] or type(wrong).__name__
    if isinstance(wrong, UnicodeError) or (
        isinstance(wrong, ValueError) and str(wrong).startswith("invalid literal")
    ):
        # int() shows what it was given, and that may be a piece of a password that is not percent-encoded.
        return "the connection URI cannot be read: percent-encode its user and password"
    text = str(wrong).partition("\n")[0] or type(wrong).__name__
    remedy = _REMEDIES.get(getattr(wrong, "sqlstate", None) or "")
    return text if remedy is None else f"{text}; {remedy}"
