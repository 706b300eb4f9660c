"""One login at a time for each client id, in the order of arrival. An id that nobody wants takes no memory."""

from __future__ import annotations

import asyncio
from collections import deque


class IdLocks:
    """Locks, each with a name."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def acquire(self, name: str) -> None:
        """Wait until the lock is ours. `release` must follow, unless this is cancelled."""
        queue = self._waiting.get(name)
        if queue is None:
            self._waiting[name] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(name)  # the lock became ours at the same moment
            else:
                queue.remove(turn)
            raise

    def release(self, name: str) -> None:
        """Give the lock to the next in the queue."""
        queue = self._waiting[name]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[name]
