"""Bans addresses after too many wrong logins. It decides at once, in memory, and takes the time as an argument.

`share` adds the counts of other nodes, through the store. A guesser who spreads his attempts over several
nodes is banned by their sum.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...model.networks import IPNetwork, client_network, network_text, parse_address
from ...model.records import BlockedClient
from ...store.protocol import StoreError, StoreUnavailable
from ..outage import Outage

if TYPE_CHECKING:
    from ...config import AutoBlockConfig
    from ...model.records import AddressSource
    from ...store.protocol import Store
    from .blocked import Blocked

_NETWORKS = 10_000  # addresses whose failures are remembered; the least recent is forgotten first
_DISCOUNTS = 1000  # failures of one address that no longer count
_UNSHARED = 10_000  # failures that wait for the store

_logger = logging.getLogger("proxyproto_rs.mqtt")


@dataclass(slots=True)
class _Failures:
    counting: deque[tuple[float, str]] = field(default_factory=deque)
    """The time and client id of each failure that counts."""
    discounted: deque[float] = field(default_factory=lambda: deque(maxlen=_DISCOUNTS))
    """The times of failures that a good login forgave or a ban answered. The store still counts them."""


class FailureWindow:
    """Counts the wrong logins of each network in the last `window` seconds."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, _Failures] = OrderedDict()

    def failed(self, network: str, client_id: str, now: float, window: float) -> int:
        """Count one wrong login, and return how many count now."""
        failures = self._networks.setdefault(network, _Failures())
        self._networks.move_to_end(network)
        if len(self._networks) > _NETWORKS:
            self._networks.popitem(last=False)
        failures.counting.append((now, client_id))
        self._expire(failures, now, window)
        return len(failures.counting)

    def forgive(self, network: str, client_id: str) -> None:
        """Forgive the failures of a client id that has logged in. Failures of other client ids still count."""
        failures = self._networks.get(network)
        if failures is None:
            return
        failures.discounted.extend(when for when, who in failures.counting if who == client_id)
        failures.counting = deque(entry for entry in failures.counting if entry[1] != client_id)

    def spend(self, network: str) -> None:
        """Count none of the failures any more, because a ban has answered them."""
        failures = self._networks.get(network)
        if failures is not None:
            failures.discounted.extend(when for when, _ in failures.counting)
            failures.counting.clear()

    def discounted(self, network: str, now: float, window: float) -> int:
        """Return how many failures no longer count here, although the store still counts them."""
        failures = self._networks.get(network)
        if failures is None:
            return 0
        self._expire(failures, now, window)
        return len(failures.discounted)

    @staticmethod
    def _expire(failures: _Failures, now: float, window: float) -> None:
        while failures.counting and failures.counting[0][0] <= now - window:
            failures.counting.popleft()
        while failures.discounted and failures.discounted[0] <= now - window:
            failures.discounted.popleft()


class AutoBlock:
    """Adds bans to `blocked`. `config` may be replaced while running."""

    def __init__(self, blocked: Blocked, store: Store, config: AutoBlockConfig) -> None:
        self.config = config
        self.bans: int = 0
        self._blocked = blocked
        self._store = store
        self._window = FailureWindow()
        self._unshared: deque[tuple[str, float]] = deque(maxlen=_UNSHARED)
        self._due_elsewhere: dict[str, tuple[int, float]] = {}
        """The networks whose ban another node should make, with the sum and the time of the last failure."""
        self._outage = Outage(_logger, "login failures wait to be shared", "login failures are shared again")

    def failed(self, address: str, client_id: str, source: AddressSource, now: float) -> BlockedClient | None:
        """Count a wrong login of `client_id` from its real address. Return the ban that it caused, if any."""
        network = self._accused(address, source)
        if network is None:
            return None
        text = network_text(network)
        if self._banned(text, now):
            return None  # the login was under way when the ban came
        self._unshared.append((text, now))
        count = self._window.failed(text, client_id, now, self.config.window)
        return self._ban(text, count, now) if count >= self.config.max_failures else None

    def succeeded(self, address: str, client_id: str) -> None:
        """Forgive the failures of this client id, but not those of its address: a guesser may own one valid account."""
        parsed = parse_address(address) if self.config.enabled else None
        if parsed is not None:
            self._window.forgive(network_text(client_network(parsed, self.config.ipv6_prefix)), client_id)

    async def share(self, now: float) -> list[BlockedClient]:
        """Report the failures since the last call to the store. Ban networks whose sum over all nodes is too high.

        Only the failure that completes the sum bans at once, so that of several nodes one does. The others have until
        the next call to hear of the ban. Where none comes, because its node has died, this one bans.

        It never raises because of the store. What this node has seen counts in any case, and what the store
        did not take waits for the next call, as long as it counts.
        """
        window = self.config.window
        waiting = [failure for failure in self._unshared if failure[1] > now - window]
        self._unshared.clear()
        counts = await asyncio.gather(
            *(
                self._store.add_failure(network, int(when * 1000), int(window * 1000))
                for network, when in waiting
            ),
            return_exceptions=True,
        )
        bans = [
            self._ban(network, total, when)
            for network, (total, when) in self._due_elsewhere.items()
            if not self._banned(network, now)
        ]
        self._due_elsewhere.clear()
        failed: list[tuple[str, float]] = []
        for (network, when), count in zip(waiting, counts, strict=True):
            if isinstance(count, StoreError):
                if isinstance(count, StoreUnavailable):
                    self._outage.goes_on(count)
                elif not failed:
                    _logger.error("login failures are not shared: %s", count)
                failed.append((network, when))
                continue
            if isinstance(count, BaseException):
                raise count
            total = count - self._window.discounted(network, when, window)
            if total < self.config.max_failures or self._banned(network, when):
                continue
            if total == self.config.max_failures:
                bans.append(self._ban(network, total, when))
            else:
                self._due_elsewhere[network] = (total, when)
        if waiting and not failed:
            self._outage.is_over()
        # The oldest stand first, and go first where there is no room for all.
        self._unshared = deque([*failed, *self._unshared], maxlen=_UNSHARED)
        return bans

    def _accused(self, address: str, source: AddressSource) -> IPNetwork | None:
        """Return the network to count against, or None for clients that are never banned."""
        if not self.config.enabled or (source == "peer" and not self.config.direct):
            return None  # a balancer without headers would be banned, and all its clients with it
        parsed = parse_address(address)
        if parsed is None or parsed.is_loopback:
            return None
        network = client_network(parsed, self.config.ipv6_prefix)
        spared = (*self.config.never, *self._blocked.proxies())
        return None if any(network.overlaps(other) for other in spared) else network

    def _ban(self, network: str, count: int, now: float) -> BlockedClient:
        self._window.spend(network)
        known = self._blocked.get(f"IP_ADDRESS:{network}")
        strikes = 1
        if known is not None and known.created_by == "auto":
            since = now - known.expiration_time / 1000
            strikes = known.strikes + 1 if since < self.config.forget else 1
        seconds = min(
            self.config.block_for * self.config.escalate ** min(strikes - 1, 64), self.config.max_block
        )
        block = BlockedClient(
            type="IP_ADDRESS",
            value=network,
            expiration_time=int((now + seconds) * 1000),
            description=f"{count} failed logins in {self.config.window:g} s, ban {strikes}",
            created_at=int(now * 1000),
            created_by="auto",
            strikes=strikes,
        )
        self.bans += 1
        self._blocked.ban(block)
        return block

    def _banned(self, network: str, now: float) -> bool:
        known = self._blocked.get(f"IP_ADDRESS:{network}")
        return known is not None and known.active(int(now * 1000))
