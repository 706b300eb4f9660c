"""Says what keeps the broker from serving clients as it should, for `/readyz`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from .store.protocol import StoreError

if TYPE_CHECKING:
    from .listening import Listening
    from .store.protocol import Store
    from .telling.sources import BrokerSources

_REMEMBERED = 1.0  # seconds: anybody may ask, and as often as they like
_STORE_ANSWERS = 2.0  # seconds
_NO_LIMIT = 2**31 - 1


class Readiness:
    """Looks at the parts of a broker, at most once a second."""

    def __init__(
        self,
        listening: Mapping[str, Listening],
        sources: BrokerSources,
        store: Store,
        *,
        has_servers: bool,
        unread_lists: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._listening = listening
        self._sources = sources
        self._store = store
        self._has_servers = has_servers
        self._unread_lists = unread_lists
        self._asked_at = float("-inf")
        self._found: tuple[str, ...] = ()
        self._asking = asyncio.Lock()

    async def missing(self) -> tuple[str, ...]:
        """Return what is missing, in words for the operator; nothing if the broker is ready."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= _REMEMBERED:
                self._found = (
                    *self._ports(),
                    *self._servers(),
                    *self._unread_lists(),
                    *await self._trouble_of_store(),
                )
                self._asked_at = time.monotonic()
            return self._found

    def _ports(self) -> list[str]:
        return [
            f"listener {name} is closed"
            for name, open_port in self._listening.items()
            if open_port.listener is None or open_port.listener.fileno() < 0
        ]

    def _servers(self) -> list[str]:
        if not self._has_servers or any(server["is_up"] for server in self._sources.servers()):
            return []
        return ["no server of backend.upstream is up"]

    async def _trouble_of_store(self) -> list[str]:
        # It writes, and changes nothing: no row is older than 1970.
        writing: Awaitable[int] = self._store.purge_unauthorized(0, _NO_LIMIT)
        try:
            await asyncio.wait_for(writing, _STORE_ANSWERS)
        except asyncio.TimeoutError:
            return [f"the store has not answered in {_STORE_ANSWERS:g} s"]
        except StoreError as wrong:
            return [f"the store cannot be written: {wrong}"]
        return []
