"""One SQLite connection, and the only thread that uses it.

An operation costs its caller a future. The thread runs all waiting operations in one transaction, because the
commit is what is expensive. It then wakes the event loop once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocol import StoreError
from . import schema
from .file import make_file, not_opened
from .query import is_inside

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

_BATCH = 1000  # operations in one transaction
_BUSY = 5.0  # seconds to wait for another process that writes the same file


class SqliteWorker:
    """Runs operations on a connection. Raises StoreError if the file cannot be made, opened or read."""

    def __init__(self, path: str, name: str, *, begin: str = "BEGIN") -> None:
        try:
            self._db = _connect(path)
        except (OSError, sqlite3.Error, ValueError) as wrong:
            raise not_opened(path, wrong) from None
        self._path = path
        self._begin = begin
        self._ready = threading.Condition()
        self._waiting: deque[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call_now(self, operation: Callable[[sqlite3.Connection], None]) -> None:
        """Run an operation in the caller's thread. Use it only at the start, when nobody else calls."""
        try:
            operation(self._db)
        except sqlite3.Error as wrong:
            raise StoreError(f"store {self._path} cannot be written: {wrong}") from None

    def call(self, operation: Callable[[sqlite3.Connection], Result]) -> asyncio.Future[Result]:
        """Queue an operation. The future belongs to the running loop."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._ready:
            if self._stopping:
                future.set_exception(StoreError(f"store {self._path} is closed"))
                return future
            self._waiting.append((operation, future))
            self._ready.notify()
        return future

    def stop(self) -> None:
        """Finish the waiting operations and close the connection. Blocks."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._stopping:
                    self._ready.wait()
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if not batch:
                break
            results = self._transaction([operation for operation, _ in batch])
            _answer([future for _, future in batch], results)
        self._db.close()

    def _transaction(self, operations: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Return the operations' results. A failed operation has a StoreError, or all do if the transaction failed."""
        results: list[Any] = []
        try:
            self._db.execute(self._begin)
            for operation in operations:
                results.append(self._one(operation))
            self._db.execute("COMMIT")
        except sqlite3.Error as wrong:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            return [StoreError(f"store {self._path}: {wrong}")] * len(operations)
        return results

    def _one(self, operation: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return operation(self._db)
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as wrong:
            if not self._db.in_transaction:  # a full disk rolls the whole transaction back
                raise
            return StoreError(f"store {self._path}: {wrong}")
        except Exception as wrong:  # a bug in one operation must not fail the others
            return StoreError(f"store {self._path}: {type(wrong).__name__}: {wrong}")


def _answer(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, result in zip(futures, results, strict=True):
        by_loop.setdefault(future.get_loop(), []).append((future, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, StoreError):
            future.set_exception(result)
        else:
            future.set_result(result)


def _connect(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        make_file(path)
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # a power failure may lose the last rows, never the file
        schema.create(db)
        db.create_function("is_inside", 2, is_inside, deterministic=True)
    except BaseException:
        db.close()
        raise
    return db
