"""A queue whose producers can wait until it has shrunk."""

from __future__ import annotations

import asyncio
from typing import Any


class WatchedQueue(asyncio.Queue[Any]):
    """An asyncio.Queue without a limit of its own. Producers call `shrunk_to` before they add more."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []

    def _get(self) -> Any:
        item = super()._get()
        if self._watchers:
            left = self.qsize()
            for size, watcher in self._watchers:
                if left <= size and not watcher.done():
                    watcher.set_result(None)
        return item

    async def shrunk_to(self, size: int) -> None:
        """Wait until at most `size` items are left."""
        while self.qsize() > size:
            watcher = (size, asyncio.get_running_loop().create_future())
            self._watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                self._watchers.remove(watcher)
