"""The blocked clients of a broker: those that an operator blocks, and those that are banned for wrong logins.

Memory decides at once, without waiting. The store keeps the blocks, and brings those of other nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import logging
import time
from typing import TYPE_CHECKING

from ...config import BlockedConfig
from ...model.networks import IPNetwork, parse_address, parse_network
from ...model.records import BLOCK_TYPES, BlockedClient
from ...store.protocol import StoreError, StoreUnavailable
from ..outage import Outage
from ..wakeup import Wakeup
from .index import BlockIndex, refuse_to_cover
from .query import select
from .sets import AddressSet, BlockedSets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...model.paging import Page
    from ...model.records import BlockQuery, BlockType, RegexMatchTarget
    from ...store.protocol import Store

_POLL_SECONDS = 1.0
_HITS_SECONDS = 10.0  # how old the stored hit counts may be
_PROXIES = 256  # proxies that are remembered when every peer is trusted

_logger = logging.getLogger("proxyproto_rs.mqtt")


class BlockEvents:
    """What follows from a change. Override the methods you need. The event loop calls them; they must not raise."""

    def added(self, block: BlockedClient, by: str) -> None:
        """A block is in force or has changed. Sessions that it covers must end."""

    def removed(self, block: BlockedClient, by: str) -> None:
        """A block was removed."""

    def expired(self, block: BlockedClient) -> None:
        """A block has expired."""


class Blocked:
    """Knows who may not connect. `start` reads the store; `run` keeps in step with it until cancelled."""

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
        """The least time to keep an expired automatic block, in seconds. Its strikes count for that long."""
        self._store = store
        self._clock = clock
        self._index = BlockIndex()
        self._sets = BlockedSets()
        self._trusted: tuple[IPNetwork, ...] = ()
        self._proxies: dict[str, IPNetwork] = {}
        self._expiries: list[tuple[int, str]] = []
        self._expired: set[str] = set()
        self._revision = 0
        self._read_at = clock()
        self._unsaved: dict[str, None] = {}
        self._hits: dict[str, None] = {}
        self._wake = Wakeup()
        self._storing = asyncio.Lock()
        self._outage = Outage(
            _logger, "blocks hold, but are neither stored nor read", "blocks are stored and read again"
        )

    async def start(self) -> None:
        """Read all blocks from the store. Raises StoreError."""
        changes = await self._store.blocks(0)
        self._revision = changes.revision
        for block in changes.changed:
            self._enter(block)

    def protect(self, proxies: Iterable[IPNetwork]) -> None:
        """Name the trusted proxies. A block that would shut one out is refused."""
        self._trusted = tuple(proxies)

    def saw_proxy(self, address: str) -> None:
        """Remember that a connection came through this proxy. Without `trusted`, this is how proxies are known."""
        if address not in self._proxies and len(self._proxies) < _PROXIES:
            parsed = parse_address(address)
            if parsed is not None:
                self._proxies[address] = parse_network(parsed)

    def bind(self, addresses: AddressSet, *, keep: Iterable[IPNetwork] = ()) -> None:
        """Let an acceptor's `deny` set refuse the blocked addresses. `keep` are the operator's entries in it."""
        self._sets.bind(addresses, self._index, self._now(), keep=keep)

    def unbind(self, addresses: AddressSet) -> None:
        """Change the set no longer."""
        self._sets.unbind(addresses)

    def proxies(self) -> tuple[IPNetwork, ...]:
        """Everything that is known as a proxy."""
        return (*self._trusted, *self._proxies.values())

    async def add(self, block: BlockedClient, *, by: str = "api") -> BlockedClient:
        """Block a client, or change the block with that key. At return the block is in force and stored.

        Raises:
            ValueError: the block would shut out a trusted proxy or all of loopback, or has expired already.
            StoreUnavailable: nothing has changed. If the store has taken the block although its answer was lost,
                it comes with the next poll.
            StoreError: the block is in force, but not stored.
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
        async with self._storing:
            try:
                stored = await self._store.put_block(block)
            except StoreUnavailable:
                raise
            except StoreError:
                self._put(block, by)
                raise
            known = self._index.get(block.key)
            if known is not None:  # it may have been hit meanwhile
                stored = dataclasses.replace(stored, hits=known.hits, last_hit_at=known.last_hit_at)
            self._unsaved.pop(block.key, None)
            self._enter(stored)
            self.events.added(stored, by)
            return stored

    def ban(self, block: BlockedClient) -> None:
        """Block at once, and let `run` store it soon. This is for automatic blocks, which no operator waits for."""
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
        """Remove a block, and return whether there was one.

        Raises:
            ValueError: these cannot be the type and value of a block.
            StoreUnavailable: nothing has changed. If the store has removed the block although its answer was lost,
                the next poll says so.
            StoreError: the block is no longer in force, but the store may still have it.
        """
        key = BlockedClient(type=type, value=value, regex_match_target=regex_match_target).key
        async with self._storing:
            try:
                stored = await self._store.delete_block(key)
            except StoreUnavailable:
                raise
            except StoreError:
                self._forget(key, by)
                raise
            was_known = self._forget(key, by)
        return was_known or stored

    async def find(self, query: BlockQuery) -> Page[BlockedClient]:
        """Return a page of blocks, each with its present status."""
        now, ttl = self._now(), int(self.config.cleanup_ttl * 1000)
        # In a thread, because sorting a hundred thousand blocks takes longer than a login should wait.
        return await asyncio.to_thread(select, tuple(self._index), query, lambda b: b.status_at(now, ttl))

    def get(self, key: str) -> BlockedClient | None:
        """Return the block with that key, expired or not."""
        return self._index.get(key)

    def match(self, client_id: str, username: str | None, address: str) -> BlockedClient | None:
        """Return the block that covers a client at CONNECT, and count a hit of it."""
        return self._hit(self._index.match(client_id, username, address, self._now()))

    def match_address(self, address: str, count: int = 1) -> BlockedClient | None:
        """Return the block that covers an address, and count `count` hits of it."""
        return self._hit(self._index.match_address(address, self._now()), count)

    def covers(self, client_id: str, username: str | None, address: str) -> BlockedClient | None:
        """Like `match`, but for a client that did not just try to connect: it counts no hit."""
        return self._index.match(client_id, username, address, self._now())

    def age(self) -> float:
        """Return how many seconds ago the store's blocks were read."""
        return max(0.0, self._clock() - self._read_at)

    def covering(self, address: str) -> tuple[BlockedClient, ...]:
        """Return the blocks of networks that hold an address, expired or not, each with its present status."""
        now, ttl = self._now(), int(self.config.cleanup_ttl * 1000)
        return tuple(
            dataclasses.replace(block, status=block.status_at(now, ttl))
            for block in self._index.covering(address)
        )

    def count_by_type(self) -> dict[BlockType, int]:
        """Return how many blocks of each type are active."""
        counts: dict[BlockType, int] = dict.fromkeys(BLOCK_TYPES, 0)
        now = self._now()
        for block in self._index:
            counts[block.type] += block.active(now)
        return counts

    async def save(self) -> None:
        """Store the changes made here. Raises StoreError; changes that were not stored wait for the next call."""
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
        """Take over the changes of other nodes. Raises StoreError."""
        async with self._storing:
            changes = await self._store.blocks(self._revision)
            self._read_at = self._clock()
            self._revision = changes.revision
            for block in changes.changed:
                known = self._index.get(block.key)
                if known is not None and known.revision >= block.revision:
                    continue
                if block.key in self._unsaved:
                    continue  # it was changed here while the store answered: the next save stores that
                self._enter(block)
                if known is None or _essence(known) != _essence(block):
                    self.events.added(block, "store")
            for key in changes.removed:
                self._forget(key, "store")

    async def sweep(self) -> None:
        """Report blocks that have expired, and delete those that expired long ago. Raises StoreError."""
        now = self._now()
        while self._expiries and self._expiries[0][0] <= now:
            due, key = heapq.heappop(self._expiries)
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
                try:
                    await self._delete(block)
                except StoreError:
                    heapq.heappush(self._expiries, (due, key))
                    raise

    async def run(self) -> None:
        """Store, poll and sweep, every second, at every ban and when the store tells of a change, until cancelled.

        Then store what is left.
        """
        loop = asyncio.get_running_loop()
        self._store.when_blocks_change(self._wake.set)
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
        except StoreUnavailable as wrong:
            self._outage.goes_on(wrong)
            return
        except StoreError as wrong:
            _logger.error("blocks hold in this process, but are not stored: %s", wrong)
        self._outage.is_over()

    async def _delete(self, expired: BlockedClient) -> None:
        """Delete an expired block from the store, then from memory, unless it is renewed meanwhile."""
        async with self._storing:
            if self._is_renewed(expired):
                return
            await self._store.delete_block(expired.key)
            if not self._is_renewed(expired):
                self._expired.discard(expired.key)
                self._index.discard(expired.key)

    def _is_renewed(self, expired: BlockedClient) -> bool:
        block = self._index.get(expired.key)
        return block is not None and block.expiration_time != expired.expiration_time

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
            self._expired.add(block.key)  # it expired before we knew it: there is nothing to report
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
    """The block without the fields that hits and storing change."""
    return dataclasses.replace(block, hits=0, last_hit_at=0, revision=0)
