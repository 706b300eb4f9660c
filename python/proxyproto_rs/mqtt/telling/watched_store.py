"""Watches how a store answers, whatever store it is."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, cast

from ..store.protocol import StoreError
from .metrics import AUTH_BUCKETS, Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..store.protocol import Store


class Watched:
    """How the calls of a store went."""

    def __init__(self) -> None:
        self.is_up: bool = True
        """Whether the last call was answered."""
        self.errors: int = 0
        self.seconds: Histogram = Histogram(AUTH_BUCKETS)


def watching(store: Store, watched: Watched) -> Store:
    """Return the same store, whose calls are watched."""
    return cast("Store", _WatchedStore(store, watched))


class _WatchedStore:
    def __init__(self, store: Store, watched: Watched) -> None:
        self._store = store
        self._watched = watched

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method) or name == "close":
            return method
        called: Callable[..., Awaitable[Any]] = self._timed(method)
        setattr(self, name, called)
        return called

    def _timed(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        watched = self._watched

        async def call(*arguments: Any, **keywords: Any) -> Any:
            since = time.perf_counter()
            try:
                result = await method(*arguments, **keywords)
            except StoreError:
                watched.errors += 1
                watched.is_up = False
                raise
            watched.is_up = True
            watched.seconds.observe(time.perf_counter() - since)
            return result

        return call
