"""The time of the database, which all nodes agree on, however wrong their own clocks are."""

from __future__ import annotations

import time

from .schema import Connection


class DatabaseClock:
    """Gives seconds since 1970. Between two measurements it goes by the machine's monotonic clock, which never jumps."""

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._base

    async def measure(self, connection: Connection) -> None:
        """Read the database's clock. It raises what asyncpg raises."""
        asked_at = time.monotonic()
        told = float(
            await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::double precision")
        )
        took = time.monotonic() - asked_at
        base = told - asked_at - took / 2
        # The answer was given at some moment of `took`. Within that nothing can be said, so nothing changes.
        if abs(base - self._base) > took / 2:
            self._base = base
