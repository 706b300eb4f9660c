"""The connections to one database. Every error of theirs becomes a StoreError that shows no secret."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from ..protocol import StoreError, StoreUnavailable
from . import schema
from .schema import Connection

Result = TypeVar("Result")

_CONNECTIONS = 4
_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 10.0
_MIGRATE_SECONDS = 60.0  # another node may be migrating
_CLOSE_SECONDS = 5.0
_REPEATS = 3  # of a transaction that the server has rolled back for the sake of another

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_TIMEOUTS = (asyncio.TimeoutError, TimeoutError)  # two classes before Python 3.11
ERRORS = (*_FAILURES, *_TIMEOUTS, ValueError, OverflowError)
"""What asyncpg raises, for a server that does not answer and for a value that does not fit."""

_PASSING = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that say nothing about the statement: another time, or another server, may take it."""


class Database:
    """A pool of connections. `open` makes it."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[Any]) -> None:
        self._dsn = dsn
        self._pool = pool
        self._closed = False

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
                min_size=1,
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
        for repeat in range(_REPEATS + 1):
            try:
                async with self._pool.acquire(timeout=_CONNECT_SECONDS) as connection:
                    return await operation(connection)  # type: ignore[arg-type]  # the pool wraps it
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as wrong:
                if repeat == _REPEATS:
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

    def _failed(self, wrong: BaseException) -> StoreError:
        kind = StoreUnavailable if _passes(wrong) else StoreError
        return kind(f"store {shown(self._dsn)}: {_line(wrong)}")


async def migrate(dsn: str) -> None:
    """Make the tables, or bring them up to date. Raises StoreError."""
    try:
        connection = await _connect(dsn, command_timeout=_MIGRATE_SECONDS)
        try:
            await schema.migrate(connection)
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
    return await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, command_timeout=command_timeout)


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
    if isinstance(wrong, (ConnectionError, FileNotFoundError, PermissionError)) and wrong.errno:
        return os.strerror(wrong.errno)  # asyncio's own text names no reason
    if isinstance(wrong, OSError):
        return wrong.strerror or str(wrong).partition("\n")[0] or type(wrong).__name__
    if isinstance(wrong, UnicodeError) or (
        isinstance(wrong, ValueError) and str(wrong).startswith("invalid literal")
    ):
        # int() shows what it was given, and that may be a piece of a password that is not percent-encoded.
        return "the connection URI cannot be read: percent-encode its user and password"
    return str(wrong).partition("\n")[0] or type(wrong).__name__
