"""The lists of the configuration: reads each in a task of its own, and has every acceptor refuse what they name.

A list is read in the background. Until it was read, the broker serves clients and is not ready. While it cannot be read,
what it named before stays in force, but for decisions that have ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxyproto_rs import AddressSet

from ...config.blocklists import BlocklistConfig
from ...model.networks import IPNetwork
from ..wakeup import Wakeup
from .networks import Protected, UnusableList
from .sources import Changes, Reader, reader_of

_LONGEST_WAIT = 60.0  # seconds until a list is tried again that could not be read

_logger = logging.getLogger("proxyproto_rs.mqtt")

Listed = Callable[[str, AddressSet], Awaitable[int]]
"""Ends the sessions of the clients that a list, by its name, keeps out. Returns how many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocklistState:
    """What is known of a list. Times are milliseconds since 1970; 0 means never."""

    name: str
    kind: str
    networks: int
    read_at: int
    """When it was last read, or seen to be unchanged."""
    error: str | None
    """Why it could not be read the last time; None if it could."""
    hits: int
    """Connections and logins that it has refused."""


class Blocklists:
    """The lists. Nothing is read before `start`.

    Args:
        configs: The section `blocklists`.
        proxies: Returns the trusted proxies, which no list keeps out.
        clock: Seconds that do not jump. Decisions end by it.
    """

    def __init__(
        self,
        configs: Sequence[BlocklistConfig],
        *,
        proxies: Callable[[], tuple[IPNetwork, ...]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_listed: Listed | None = None
        """Is awaited when a list names new networks, or was read for the first time."""
        self._proxies = proxies
        self._clock = clock
        self._bound: list[AddressSet] = []
        self._hits: Counter[str] = Counter()
        self._is_running = False
        self._protected_for: tuple[tuple[IPNetwork, ...], Protected] | None = None
        self._lists = [self._make(config, None) for config in configs]

    def bind(self, addresses: AddressSet) -> None:
        """Let an acceptor's `deny` set refuse what the lists name."""
        self._bound.append(addresses)
        addresses.include(self._named())

    def unbind(self, addresses: AddressSet) -> None:
        """Change the set no longer, and leave it as it is."""
        self._bound = [bound for bound in self._bound if bound is not addresses]

    def start(self) -> None:
        """Begin to read, in tasks."""
        self._is_running = True
        for one in self._lists:
            one.start()

    async def stop(self) -> None:
        """Read no more. What is in force stays."""
        self._is_running = False
        await asyncio.gather(*(one.stop() for one in self._lists))

    async def change(self, configs: Sequence[BlocklistConfig]) -> None:
        """Put other lists in their place, and read all of them again.

        A list that has another source stays in force until that was read.
        """
        kept = {one.config: one for one in self._lists}
        named = {one.config.label: one for one in self._lists}
        before = self._lists
        self._lists = [kept.get(config) or self._make(config, named.get(config.label)) for config in configs]
        self._include()
        await asyncio.gather(*(one.stop() for one in before if one not in self._lists))
        for one in self._lists:
            if one in before:
                one.read_again()
            elif self._is_running:
                one.start()

    def naming(self, address: str, count: int = 0) -> str | None:
        """Return the name of the first list that keeps an address out, and count `count` hits of it."""
        for one in self._lists:
            try:
                if address in one.in_force:
                    self._hits[one.config.label] += count
                    return one.config.label
            except ValueError:  # the path of a UNIX socket
                return None
        return None

    def states(self) -> tuple[BlocklistState, ...]:
        """Return what is known of each list."""
        return tuple(one.state(self._hits[one.config.label]) for one in self._lists)

    def unread(self) -> tuple[str, ...]:
        """Return what keeps lists from being in force that were never read, in words for the operator."""
        return tuple(
            f"blocklist {one.config.label} was not read yet" + (f": {one.error}" if one.error else "")
            for one in self._lists
            if not one.read_at
        )

    def _make(self, config: BlocklistConfig, before: _List | None) -> _List:
        return _List(config, self._clock, self._protected, self._was_read, before)

    async def _protected(self) -> Protected:
        proxies = self._proxies()
        if self._protected_for is None or self._protected_for[0] != proxies:
            self._protected_for = proxies, await asyncio.to_thread(Protected, proxies)
        return self._protected_for[1]

    async def _was_read(self, one: _List, *, is_first: bool) -> int:
        if is_first:
            self._include()
        return 0 if self.on_listed is None else await self.on_listed(one.config.label, one.in_force)

    def _named(self) -> dict[str, AddressSet]:
        return {one.config.label: one.in_force for one in self._lists}

    def _include(self) -> None:
        for addresses in self._bound:
            addresses.include(self._named())


class _List:
    """One list, and the task that reads it."""

    def __init__(
        self,
        config: BlocklistConfig,
        clock: Callable[[], float],
        protected: Callable[[], Awaitable[Protected]],
        was_read: Callable[..., Awaitable[int]],
        before: _List | None,
    ) -> None:
        self.config = config
        self.error: str | None = None
        self.read_at = 0
        self.in_force: AddressSet = AddressSet() if before is None else before.in_force
        self._reader: Reader = reader_of(config, clock)
        self._protected = protected
        self._protected_then: Protected | None = None
        self._was_read = was_read
        self._wake = Wakeup()
        self._anew = False
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"proxyproto-rs blocklist {self.config.label}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def read_again(self) -> None:
        self._anew = True
        self._wake.set()

    def state(self, hits: int) -> BlocklistState:
        return BlocklistState(
            name=self.config.label,
            kind=self.config.kind,
            networks=self._reader.networks() if self.read_at else len(self.in_force),
            read_at=self.read_at,
            error=self.error,
            hits=hits,
        )

    async def _run(self) -> None:
        while True:
            await self._read()
            every = self.config.interval
            await self._wake.wait(every if self.error is None else min(every, _LONGEST_WAIT))
            self._wake.clear()

    async def _read(self) -> None:
        protected = await self._protected()
        # What is protected since then may stand in the list.
        anew = self._anew or protected is not self._protected_then
        self._anew, self._protected_then = False, protected
        try:
            changes = await self._reader.read(protected, anew=anew)
        except UnusableList as wrong:
            self._anew = anew
            self._failed(str(wrong))
            return
        except Exception as wrong:  # a fault of ours must not leave the list unread for ever
            _logger.exception("blocklist %s: a fault of the broker", self.config.label)
            self._failed(f"a fault of the broker: {type(wrong).__name__}")
            return
        is_first, self.read_at = not self.read_at, int(time.time() * 1000)
        self.in_force = self._reader.addresses
        if self.error is not None:
            self.error = None
            _logger.warning("blocklist %s is read again", self.config.label)
        ended = 0
        if is_first or (changes is not None and changes.new):
            ended = await self._was_read(self, is_first=is_first)
        if changes is not None:
            self._tell(changes, ended)

    def _failed(self, text: str) -> None:
        if text != self.error:
            self.error = text
            _logger.error(
                "blocklist %s cannot be read, %s: %s",
                self.config.label,
                "what it named before stays in force" if len(self.in_force) else "so it keeps nobody out",
                text,
            )

    def _tell(self, changes: Changes, ended: int) -> None:
        name = self.config.label
        if changes.new or changes.gone:
            _logger.info(
                "blocklist %s new=%d gone=%d networks=%d ended=%d",
                *(name, changes.new, changes.gone, self._reader.networks(), ended),
            )
        for kind, count in changes.ignored.counts.items():
            if kind not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(kind)
                _logger.warning(
                    "blocklist %s ignores %d, as it does all: %s. The first is %r",
                    *(name, count, kind, changes.ignored.first[kind]),
                )


_MOST_TOLD = 32  # kinds of entries; a stranger's API could invent new ones for ever
