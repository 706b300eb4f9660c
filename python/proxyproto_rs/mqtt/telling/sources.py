"""The broker's current numbers, for Prometheus and for the broker's own history."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..tables.sessions import listener_and_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxyproto_rs import ListenerStats
    from proxyproto_rs._core import _ServerNumbers

    from ..tables.blocklists.blocklists import Blocklists, BlocklistState
    from ..tables.blocks.auto_block import AutoBlock
    from ..tables.blocks.blocked import Blocked
    from ..tables.sessions import Sessions
    from ..tables.unauthorized import Unauthorized
    from .audit import AuditLog
    from .metrics import Metrics
    from .watched_store import Watched


class BrokerSources:
    """Implements `collector.Sources`."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        sessions: Sessions,
        stats: Callable[[], Mapping[str, ListenerStats]],
        unauthorized: Unauthorized,
        blocked: Blocked,
        blocklists: Blocklists,
        auto_block: AutoBlock,
        audit: AuditLog,
        store: Watched,
        relayed: Callable[[], Mapping[str, Any]],
        embedded: Callable[[], Mapping[str, int]],
    ) -> None:
        self._metrics = metrics
        self._sessions = sessions
        self._stats = stats
        self._unauthorized = unauthorized
        self._blocked = blocked
        self._blocklists = blocklists
        self._auto_block = auto_block
        self.audit = audit
        self._store = store
        self._relayed = relayed
        """The numbers of a gateway, which counts what no Python sees."""
        self._embedded = embedded

    @property
    def metrics(self) -> Metrics:
        """All counters that no other part keeps."""
        self._metrics.publish_delays = 0
        for name, numbers in self._relayed()["listeners"].items():
            counts = self._metrics.listener(name)
            counts.packets_in, counts.packets_out = numbers["packets_in"], numbers["packets_out"]
            self._metrics.publish_delays += numbers["publish_delays"]
        return self._metrics

    def stats(self) -> Mapping[str, ListenerStats]:
        """The counts of each listener's acceptor."""
        return self._stats()

    @property
    def store(self) -> Watched:
        """How the store's calls went."""
        return self._store

    def blocklist_age(self) -> float:
        """How many seconds ago the blocks of other nodes were read."""
        return self._blocked.age()

    def blocklists(self) -> Sequence[BlocklistState]:
        """What is known of the lists of `blocklists`."""
        return self._blocklists.states()

    def sessions(self) -> dict[tuple[str, str], int]:
        """The number of sessions, by listener and state."""
        return dict(Counter(map(listener_and_state, self._sessions.records())))

    async def count_sessions(self) -> dict[tuple[str, str], int]:
        """Count like `sessions`; the event loop gets a turn after each slice."""
        return await self._sessions.count_by_state()

    def transferred(self) -> dict[str, tuple[int, int]]:
        """Bytes in and out by listener, with those of open connections."""
        listeners = self._relayed()["listeners"]
        return {name: (numbers["bytes_in"], numbers["bytes_out"]) for name, numbers in listeners.items()}

    def servers(self) -> Sequence[_ServerNumbers]:
        """The servers behind, each address of a name; none if this process carries the messages."""
        servers: Sequence[_ServerNumbers] = self._relayed()["servers"]
        return servers

    def embedded(self) -> Mapping[str, int]:
        """What the embedded broker counts, as `_core.Broker.stats` names it; nothing without one."""
        return self._embedded()

    def blocked(self) -> dict[str, int]:
        """The number of active blocks, by type."""
        return {str(kind): count for kind, count in self._blocked.count_by_type().items()}

    def totals(self) -> dict[str, int]:
        """The totals of the tables and the logs."""
        return {
            "unauthorized_clients": self._unauthorized.rows,
            "unauthorized_dropped": self._unauthorized.dropped,
            "auto_blocks": self._auto_block.bans,
            "audit_dropped": self.audit.dropped,
        }
