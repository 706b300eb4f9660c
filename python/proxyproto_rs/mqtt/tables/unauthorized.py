"""The table of refused clients. Recording a refusal delays no login: the store is written later.

A refusal goes into a bounded queue. Attempts with the same client id from the same address are one row there.
The queue is written after 50 ms or 1000 rows. What a store does not take because it does not answer waits in
order, and the oldest goes first where there is no room. Refusals that no row counts are counted in `dropped`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from ..config import UnauthorizedConfig
from ..model.events import Operated, nobody_told
from ..model.records import MAX_TEXT, UnauthorizedQuery
from ..store.protocol import StoreError, StoreUnavailable
from .outage import Outage
from .wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.paging import Page
    from ..model.records import UnauthorizedClient
    from ..store.protocol import Store

_BATCH_ROWS = 1000
_BATCH_SECONDS = 0.05
_CAPACITY = 10_000
_AGAIN_SECONDS = 1.0  # to the next attempt at a store that did not answer
_PURGE_SECONDS = 4.0  # after a write, so that `max_rows` holds within 5 s
_SWEEP_SECONDS = 3600.0  # if nothing is written

_logger = logging.getLogger("proxyproto_rs.mqtt")

Key = tuple[str, str]
"""Client id and address."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """What is written in one call: the rows of clients that have logged in go, or rows are added."""

    cleared: tuple[Key, ...] = ()
    rows: tuple[UnauthorizedClient, ...] = ()

    @property
    def attempts(self) -> int:
        return sum(row.attempts for row in self.rows)


class Unauthorized:
    """The refused clients. `run` writes and purges. `find` sees everything that was recorded before it."""

    def __init__(
        self,
        store: Store,
        config: UnauthorizedConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
        capacity: int = _CAPACITY,
    ) -> None:
        self.config: UnauthorizedConfig = config or UnauthorizedConfig()
        """May be replaced while running."""
        self.operated: Operated = nobody_told
        """Is told what operators do."""
        self.dropped: int = 0
        """Refusals that no row counts, because the queue was full or the store failed."""
        self.rows: int = 0
        """Rows in the table at the last purge or `count`."""
        self._store = store
        self._clock = clock
        self._capacity = capacity
        self._waiting: OrderedDict[Key, UnauthorizedClient] = OrderedDict()
        self._cleared: OrderedDict[Key, None] = OrderedDict()
        self._attempts: OrderedDict[Key, int] = OrderedDict()
        self._steps: deque[_Step] = deque()
        """What is to be written, oldest first. A step stays as it is, so that the store knows it again."""
        self._outage = Outage(
            _logger, "unauthorized clients wait to be recorded", "unauthorized clients are recorded again"
        )
        self._wake = Wakeup()
        self._full = Wakeup()
        self._writing = asyncio.Lock()
        self._unpurged = False

    def record(self, row: UnauthorizedClient) -> int:
        """Queue a refusal. Return how many attempts of this client id and address this process remembers."""
        row = dataclasses.replace(
            row,
            client_id=row.client_id[:MAX_TEXT],
            username=row.username[:MAX_TEXT] if row.username is not None else None,
            reason=row.reason[:MAX_TEXT],
            ip_address=row.ip_address[:MAX_TEXT],
            first_ts=row.first_ts or row.ts,
        )
        key = (row.client_id, row.ip_address)
        attempts = self._count(key, row.attempts)
        if not self.config.enabled:
            return attempts
        waiting = self._waiting.get(key)
        if waiting is not None:
            row = dataclasses.replace(
                row, first_ts=waiting.first_ts, attempts=waiting.attempts + row.attempts
            )
        elif len(self._waiting) >= self._capacity:
            self.dropped += row.attempts
            return attempts
        self._waiting[key] = row
        self._woken()
        return attempts

    def cleared(self, client_id: str, ip_address: str) -> None:
        """Delete the row of a client that has logged in from there. Rows of its id with other addresses stay."""
        key = (client_id[:MAX_TEXT], ip_address[:MAX_TEXT])
        self._attempts.pop(key, None)
        self._waiting.pop(key, None)
        if len(self._cleared) < self._capacity:
            self._cleared[key] = None
            self._woken()

    async def find(self, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
        """Find a page of rows. Raises StoreError if the store fails."""
        await self.flush()
        return await self._store.find_unauthorized(query)

    async def delete(self, client_id: str | None, ip: str | None = None, *, by: str = "api") -> int:
        """Delete the rows of a client id, of an address, or of both. Return how many. Raises StoreError.

        `by` is for the audit log.
        """
        await self.flush()
        for key in [key for key in self._attempts if client_id in (None, key[0]) and ip in (None, key[1])]:
            del self._attempts[key]
        count = await self._store.delete_unauthorized(client_id, ip)
        self.operated("unauthorized.delete", by=by, client_id=client_id, ip=ip, count=count)
        return count

    async def delete_all(self, *, by: str = "api") -> int:
        """Delete all rows. Return how many there were. Raises StoreError."""
        await self.flush()
        self._attempts.clear()
        count = await self._store.delete_unauthorized(None, None)
        self.operated("unauthorized.delete", by=by, ip=None, count=count)
        return count

    async def flush(self) -> None:
        """Write everything that waits, as far as the store answers. It does not raise.

        Refusals that the store does not take are counted.
        """
        async with self._writing:
            self._add_steps()
            while self._steps:
                try:
                    await self._write(self._steps[0])
                except StoreUnavailable as wrong:
                    self._outage.goes_on(wrong)
                    return
                self._steps.popleft()
            self._outage.is_over()

    async def count(self) -> int:
        """Count the rows, with all that was recorded before. Raises StoreError."""
        await self.flush()
        self.rows = await self._count_rows()
        return self.rows

    async def purge(self) -> int:
        """Delete rows older than the ttl, then the oldest rows above `max_rows`. Return how many."""
        self._unpurged = False
        before = int((self._clock() - self.config.ttl) * 1000)
        gone = await self._store.purge_unauthorized(before, self.config.max_rows)
        self.rows = await self._count_rows()
        return gone

    async def run(self) -> None:
        """Write and purge until cancelled. Then write what is left."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        try:
            while True:
                if await self._wake.wait(purge_at - loop.time()):
                    await self._full.wait(_BATCH_SECONDS)
                    self._wake.clear()
                    await self.flush()
                    if self._steps:
                        self._wake.set()
                        await asyncio.sleep(_AGAIN_SECONDS)
                if self._unpurged:
                    purge_at = min(purge_at, loop.time() + _PURGE_SECONDS)
                if loop.time() >= purge_at:
                    await self._purge_quietly()
                    purge_at = loop.time() + _SWEEP_SECONDS
        finally:
            await self.flush()
            if lost := sum(step.attempts for step in self._steps):
                self.dropped += lost
                _logger.error("%d refusals are not recorded: the store did not answer", lost)
            self._steps.clear()

    def _add_steps(self) -> None:
        cleared, self._cleared = self._cleared, OrderedDict()
        waiting, self._waiting = self._waiting, OrderedDict()
        self._full.clear()
        if cleared:
            self._steps.append(_Step(cleared=tuple(cleared)))
        rows = tuple(waiting.values())
        for start in range(0, len(rows), _BATCH_ROWS):
            self._steps.append(_Step(rows=rows[start : start + _BATCH_ROWS]))
        # Twice, so that a full queue of each kind has room.
        while sum(len(step.cleared) + len(step.rows) for step in self._steps) > 2 * self._capacity:
            self.dropped += self._steps.popleft().attempts

    async def _write(self, step: _Step) -> None:
        """Raise StoreUnavailable if the step must wait. Whatever else fails is logged, and the step is done."""
        try:
            if step.cleared:
                await self._clear(step.cleared)
            else:
                self._unpurged = True
                await self._store.upsert_unauthorized(step.rows)
        except StoreUnavailable:
            raise
        except StoreError as wrong:
            self.dropped += step.attempts
            _logger.error("unauthorized clients are not recorded: %s", wrong)

    async def _clear(self, keys: tuple[Key, ...]) -> None:
        results = await asyncio.gather(
            *(self._store.clear_unauthorized(*key) for key in keys), return_exceptions=True
        )
        for result in results:
            if isinstance(result, StoreUnavailable):
                raise result
            if isinstance(result, StoreError):
                _logger.error("rows of clients that have logged in stay: %s", result)
                return
            if isinstance(result, BaseException):
                raise result

    async def _purge_quietly(self) -> None:
        try:
            await self.purge()
        except StoreUnavailable as wrong:
            self._unpurged = True
            self._outage.goes_on(wrong)
        except StoreError as wrong:
            _logger.error("unauthorized clients are not purged: %s", wrong)

    async def _count_rows(self) -> int:
        return (await self._store.find_unauthorized(UnauthorizedQuery(page_size=1))).total_elements

    def _count(self, key: Key, attempts: int) -> int:
        total = self._attempts.pop(key, 0) + attempts
        self._attempts[key] = total
        if len(self._attempts) > self._capacity:
            self._attempts.popitem(last=False)
        return total

    def _woken(self) -> None:
        self._wake.set()
        if len(self._waiting) + len(self._cleared) >= _BATCH_ROWS:
            self._full.set()
