"""Counts everything once, also where a COMMIT was done and its answer was lost.

Each batch has a number, which its own transaction writes. The next transaction reads that number, and so learns
whether the batch in doubt was committed. Whoever repeats an item of it then changes nothing. Without this,
repeating lost COMMITs added 95 attempts to 14,294.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Generic, TypeVar

from .schema import Connection

Item = TypeVar("Item", bound=Hashable)

_REMEMBERED = 20_000  # items that were written although their writer was told otherwise

_READ = "SELECT number FROM proxyproto_rs.written_batch WHERE writer = $1 AND kind = $2 FOR UPDATE"
_WRITE = (
    "INSERT INTO proxyproto_rs.written_batch (writer, kind, number) VALUES ($1, $2, $3)"
    " ON CONFLICT (writer, kind) DO UPDATE SET number = excluded.number, seen = now()"
)


class Ledger(Generic[Item]):
    """The batches of one kind from one writer. They are written one after the other."""

    def __init__(self, writer: uuid.UUID, kind: str) -> None:
        self._writer = writer
        self._kind = kind
        self._number = 0
        self._doubt: Counter[Item] | None = None
        """The items of batch `_number`, until its COMMIT is answered."""
        self._written: Counter[Item] = Counter()

    async def enter(self, connection: Connection) -> None:
        """Write the first number. The row must be there before a batch: FOR UPDATE does not wait for a row to come."""
        await connection.execute(_WRITE, self._writer, self._kind, self._number)

    @contextlib.asynccontextmanager
    async def batch(self, connection: Connection, items: Sequence[Item]) -> AsyncIterator[list[bool]]:
        """Begin a transaction, and give for each item whether it is new. At the end it is committed.

        An item that is not new was in a batch whose COMMIT was done although its answer was lost.
        """
        async with connection.transaction():
            await self._resolve(connection)
            left = Counter(self._written)
            new = []
            for item in items:
                known = left[item] > 0
                new.append(not known)
                if known:
                    left[item] -= 1
            await connection.execute(_WRITE, self._writer, self._kind, self._number + 1)
            self._number += 1
            self._doubt = Counter(item for item, fresh in zip(items, new, strict=True) if fresh)
            yield new
        self._doubt = None
        self._written = +left

    async def _resolve(self, connection: Connection) -> None:
        """Learn whether the last batch was committed. A server that is still committing it holds the row's lock."""
        if self._doubt is None:
            return
        if await connection.fetchval(_READ, self._writer, self._kind) == self._number:
            self._written += self._doubt
            if sum(self._written.values()) > _REMEMBERED:
                self._written = self._doubt
        self._doubt = None
