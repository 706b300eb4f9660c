"""The queue of slow password checks in this process: one runs at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .turns import Turns

Result = TypeVar("Result")

# The event loop goes before the thread where they share a core. With 200 wrong logins a second on one core of a busy
# machine, remembered logins took 28 ms in the median and 630 at most at the same priority, 8 and 105 with this one.
_NICE = 5


class CheckQueue:
    """Runs slow checks one by one, fair by address, as `Turns` says."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread = ThreadPoolExecutor(1, name, _step_back)
        self._turns = Turns(1, clock=clock)

    def __len__(self) -> int:
        return len(self._turns)

    async def run(
        self,
        check: Callable[[], Result],
        *,
        address: str = "",
        patience: float | None = None,
        is_known: bool = False,
    ) -> Result:
        """Run the check when it is the address's turn, and return its result.

        `patience` is how long the check may wait for its turn, in seconds; None is for ever. `is_known` lets it go
        before those that are not.

        Raises:
            Refuse: `busy`: the check would wait longer or has waited longer, 1,000 are waiting, or the queue is closed.
        """
        async with self._turns.taken(address, patience, is_known=is_known):
            return await asyncio.get_running_loop().run_in_executor(self._thread, check)

    async def close(self) -> None:
        """Refuse the checks that wait, and wait for the one that runs."""
        self._turns.close()
        await asyncio.to_thread(self._thread.shutdown)


def _step_back() -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # on Linux that is the thread alone
