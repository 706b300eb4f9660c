"""The blocked clients of a broker: an operator's, and those that wrong logins have earned.

Memory decides, at once and without waiting; the store remembers, and tells of other nodes' blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import logging
import time
from typing import TYPE_CHECKING

from .block_index import BlockIndex, refuse_to_cover
from .block_query import select
from .blocked_sets import AddressSet, BlockedSets
from .config import BlockedConfig
from .networks import IPNetwork, parse_address, parse_network
from .records import BLOCK_TYPES, BlockedClient
from .store import StoreError
from .wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .paging import Page
    from .records import BlockQuery, BlockType, RegexMatchTarget
    from .store import Store

_POLL_SECONDS = 1.0
_HITS_SECONDS = 10.0  # how old the stored hit counts may be
_PROXIES = 256  # proxies that are remembered where every peer is trusted

_logger = logging.getLogger("proxyproto_rs.mqtt")


class BlockEvents:
    """What follows from a change; override what is needed. Called in the event loop, must not raise."""

    def added(self, block: BlockedClient, by: str) -> None:
        """A block is in force, or has changed; sessions that it covers must end."""

    def removed(self, block: BlockedClient, by: str) -> None:
        """A block is gone."""

    def expired(self, block: BlockedClient) -> None:
        """A block has ended by itself."""


class Blocked:
    """Who may not connect. `start` reads the store; `run` keeps in step with it until cancelled."""

    def __init__(
        self,
        store: Store,
        config: BlockedConfig | None = None,
        *,
        events: BlockEvents | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config: BlockedConfig = config or BlockedConfig()
        """May be replaced while running."""
        self.events: BlockEvents = events or BlockEvents()
        self.keep_automatic: float = 0.0
        """Seconds for which an expired automatic block stays at least: so long its strikes count."""
        self._store = store
        self._clock = clock
        self._index = BlockIndex()
        self._sets = BlockedSets()
        self._trusted: tuple[IPNetwork, ...] = ()
        self._proxies: dict[str, IPNetwork] = {}
        self._expiries: list[tuple[int, str]] = []
        self._expired: set[str] = set()
        self._revision = 0
        self._unsaved: dict[str, None] = {}
        self._hits: dict[str, None] = {}
        self._wake = Wakeup()
        self._storing = asyncio.Lock()

    async def start(self) -> None:
        """Read every block. Raises StoreError."""
        changes = await self._store.blocks(0)
        self._revision = changes.revision
        for block in changes.changed:
            self._enter(block)

    def protect(self, proxies: Iterable[IPNetwork]) -> None:
        """Name the trusted proxies: a block that would shut one out is refused."""
        self._trusted = tuple(proxies)

    def saw_proxy(self, address: str) -> None:
        """A connection came through this proxy: where every peer is trusted, proxies are known so."""
        if address not in self._proxies and len(self._proxies) < _PROXIES:
            parsed = parse_address(address)
            if parsed is not None:
                self._proxies[address] = parse_network(parsed)

    def bind(self, addresses: AddressSet, *, keep: Iterable[IPNetwork] = ()) -> None:
        """Have an acceptor's `deny` set refuse what is blocked; `keep` are the operator's entries in it."""
        self._sets.bind(addresses, self._index, self._now(), keep=keep)

    def unbind(self, addresses: AddressSet) -> None:
        """Leave the set alone from now on."""
        self._sets.unbind(addresses)

    def proxies(self) -> tuple[IPNetwork, ...]:
        """Everything that is known to be a proxy."""
        return (*self._trusted, *self._proxies.values())

    async def add(self, block: BlockedClient, *, by: str = "api") -> BlockedClient:
        """Block somebody, or change the block of that key. In force at return, and stored.

        Raises:
            ValueError: it would shut out a trusted proxy or all of loopback, or it has expired already.
            StoreError: it is in force, but not stored.
        """
        now = self._now()
        refuse_to_cover(block, self.proxies())
        if not block.active(now):
            raise ValueError(f"expiration_time {block.expiration_time} is in the past")
        known = self._index.get(block.key)
        block = dataclasses.replace(
            block,
            created_at=block.created_at or (known.created_at if known else now),
            hits=known.hits if known else 0,
            last_hit_at=known.last_hit_at if known else 0,
        )
        self._put(block, by)
        await self.save()
        return self._index.get(block.key) or block

    def ban(self, block: BlockedClient) -> None:
        """Block at once, and store it soon (`run`): for automatic blocks, which no operator waits for."""
        self._put(block, "auto")
        self._wake.set()

    async def remove(
        self,
        type: BlockType,
        value: str,
        regex_match_target: RegexMatchTarget | None = None,
        *,
        by: str = "api",
    ) -> bool:
        """Unblock; whether there was such a block. Raises StoreError; ValueError for what cannot be one."""
        key = BlockedClient(type=type, value=value, regex_match_target=regex_match_target).key
        was_known = self._forget(key, by)
        async with self._storing:
            # A poll that was under way may have brought it back.
            self._forget(key, by)
            stored = await self._store.delete_block(key)
        return was_known or stored

    async def find(self, query: BlockQuery) -> Page[BlockedClient]:
        """Find a page of blocks, each with its status as of now."""
        now, ttl = self._now(), int(self.config.cleanup_ttl * 1000)
        # In a thread, because a hundred thousand blocks take longer to sort than a login may wait.
        return await asyncio.to_thread(select, tuple(self._index), query, lambda b: b.status_at(now, ttl))

    def get(self, key: str) -> BlockedClient | None:
        """The block of that key, expired or not."""
        return self._index.get(key)

    def match(self, client_id: str, username: str | None, address: str) -> BlockedClient | None:
        """Whoever this is at CONNECT: the block that covers it, its hit counted."""
        return self._hit(self._index.match(client_id, username, address, self._now()))

    def match_address(self, address: str, count: int = 1) -> BlockedClient | None:
        """The block that covers an address, `count` hits counted."""
        return self._hit(self._index.match_address(address, self._now()), count)

    def covers(self, client_id: str, username: str | None, address: str) -> BlockedClient | None:
        """Like `match`, but nobody has knocked: no hit is counted."""
        return self._index.match(client_id, username, address, self._now())

    def count_by_type(self) -> dict[BlockType, int]:
        """How many blocks of each type are active."""
        counts: dict[BlockType, int] = dict.fromkeys(BLOCK_TYPES, 0)
        now = self._now()
        for block in self._index:
            counts[block.type] += block.active(now)
        return counts

    async def save(self) -> None:
        """Store what has changed here. Raises StoreError; what was not stored waits for the next time."""
        async with self._storing:
            keys, self._unsaved = list(self._unsaved), {}
            for position, key in enumerate(keys):
                block = self._index.get(key)
                if block is None:
                    continue
                try:
                    stored = await self._store.put_block(block)
                except StoreError:
                    self._unsaved = {**dict.fromkeys(keys[position:]), **self._unsaved}
                    raise
                current = self._index.get(key)
                if current is not None:
                    self._index.put(dataclasses.replace(current, revision=stored.revision))

    async def poll(self) -> None:
        """Take over what other nodes have changed. Raises StoreError."""
        async with self._storing:
            changes = await self._store.blocks(self._revision)
            self._revision = changes.revision
            for block in changes.changed:
                known = self._index.get(block.key)
                if known is not None and known.revision >= block.revision:
                    continue
                self._enter(block)
                if known is None or _essence(known) != _essence(block):
                    self.events.added(block, "store")
            for key in changes.removed:
                self._forget(key, "store")

    async def sweep(self) -> None:
        """Tell of blocks that have expired; delete those that expired long ago. Raises StoreError."""
        now = self._now()
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            block = self._index.get(key)
            if block is None or not block.expiration_time or block.active(now):
                continue
            if key not in self._expired:
                self._expired.add(key)
                self._sets.discard(block)
                self.events.expired(block)
            delete_at = block.expiration_time + self._kept_ms(block)
            if now < delete_at:
                heapq.heappush(self._expiries, (delete_at, key))
            else:
                self._expired.discard(key)
                self._index.discard(key)
                await self._store.delete_block(key)

    async def run(self) -> None:
        """Store, poll and sweep, every second and at every ban, until cancelled; then store what is left."""
        loop = asyncio.get_running_loop()
        hits_at = loop.time() + _HITS_SECONDS
        try:
            while True:
                await self._wake.wait(_POLL_SECONDS)
                self._wake.clear()
                if loop.time() >= hits_at:
                    self._unsaved |= self._hits
                    self._hits = {}
                    hits_at = loop.time() + _HITS_SECONDS
                await self._quietly()
        finally:
            self._unsaved |= self._hits
            with contextlib.suppress(StoreError):
                await self.save()

    async def _quietly(self) -> None:
        try:
            await self.save()
            await self.poll()
            await self.sweep()
        except StoreError as wrong:
            _logger.error("blocks hold in this process, but are not stored: %s", wrong)

    def _put(self, block: BlockedClient, by: str) -> None:
        self._enter(block)
        self._unsaved[block.key] = None
        self.events.added(block, by)

    def _forget(self, key: str, by: str) -> bool:
        block = self._index.discard(key)
        self._unsaved.pop(key, None)
        if block is not None:
            self._sets.discard(block)
            self.events.removed(block, by)
        return block is not None

    def _enter(self, block: BlockedClient) -> None:
        now = self._now()
        self._index.put(block)
        self._sets.put(block, now)
        if block.active(now):
            self._expired.discard(block.key)
        else:
            self._expired.add(block.key)  # before we knew it: nothing to tell
        if block.expiration_time:
            heapq.heappush(self._expiries, (block.expiration_time, block.key))

    def _hit(self, block: BlockedClient | None, count: int = 1) -> BlockedClient | None:
        if block is not None:
            block = dataclasses.replace(block, hits=block.hits + count, last_hit_at=self._now())
            self._index.put(block)
            self._hits[block.key] = None
        return block

    def _kept_ms(self, block: BlockedClient) -> int:
        seconds = self.config.cleanup_ttl
        if block.created_by == "auto":
            seconds = max(seconds, self.keep_automatic)
        return int(seconds * 1000)

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _essence(block: BlockedClient) -> BlockedClient:
    """The block without what changes when somebody knocks."""
    return dataclasses.replace(block, hits=0, last_hit_at=0, revision=0)
