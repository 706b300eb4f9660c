"""The broker's current numbers, for Prometheus and for the broker's own history."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .audit import AuditLog
    from .auto_block import AutoBlock
    from .blocks import Blocked
    from .gate import Gate
    from .listening import Listening
    from .metrics import Metrics
    from .unauthorized import Unauthorized


class BrokerSources:
    """Implements `collector.Sources`."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        gate: Gate,
        listening: Mapping[str, Listening],
        unauthorized: Unauthorized,
        blocked: Blocked,
        auto_block: AutoBlock,
        audit: AuditLog,
    ) -> None:
        self._metrics = metrics
        self._gate = gate
        self._listening = listening
        self._unauthorized = unauthorized
        self._blocked = blocked
        self._auto_block = auto_block
        self.audit = audit

    @property
    def metrics(self) -> Metrics:
        """All counters that no other part keeps."""
        self._metrics.publish_delays = self._gate.publish_delays
        return self._metrics

    def connections(self) -> dict[str, Mapping[str, int]]:
        """The number of each outcome, by listener."""
        return {name: open_port.stats() for name, open_port in self._listening.items()}

    def pending(self) -> dict[str, int]:
        """The number of connections without a complete header, by listener."""
        return {name: open_port.stats().pending for name, open_port in self._listening.items()}

    def sessions(self) -> dict[tuple[str, str], int]:
        """The number of sessions, by listener and state."""
        counts: Counter[tuple[str, str]] = Counter()
        for record in self._gate.sessions.records():
            counts[record.connection.listener, "connected" if record.connected else "disconnected"] += 1
        return dict(counts)

    def transferred(self) -> dict[str, tuple[int, int]]:
        """Bytes in and out by listener, with those of open connections."""
        totals = {
            name: [counts.bytes_in, counts.bytes_out] for name, counts in self._metrics.listeners.items()
        }
        for client in self._gate.sessions.clients():
            total = totals.setdefault(client.connection.listener, [0, 0])
            total[0] += client.wire.traffic.bytes_in
            total[1] += client.wire.traffic.bytes_out
        return {name: (total[0], total[1]) for name, total in totals.items()}

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
