"""The broker's counters, as plain integers: counting costs one addition. `collector` turns them into metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

CONNECT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, from the accepted connection to its CONNACK, with TLS."""
AUTH_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds. argon2 takes 0.1."""


class Histogram:
    """Counts values by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds: tuple[float, ...] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each upper bound with the count of all values up to it, as Prometheus wants them."""
        result, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            result.append((bound, running))
        return result


@dataclass(slots=True)
class ListenerCounts:
    """The traffic of one listener."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: list[int] = field(default_factory=lambda: [0] * 16)
    """By packet type."""
    packets_out: list[int] = field(default_factory=lambda: [0] * 16)
    connect_seconds: Histogram = field(default_factory=lambda: Histogram(CONNECT_BUCKETS))


@dataclass(slots=True)
class Metrics:
    """All counters of a broker that no other part keeps."""

    connects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By listener and result: `accepted`, or the reason."""
    disconnects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By listener and reason."""
    acl_denied: Counter[str] = field(default_factory=Counter)
    """By action."""
    block_hits: Counter[str] = field(default_factory=Counter)
    """By type of block."""
    publish_delays: int = 0
    auth_seconds: Histogram = field(default_factory=lambda: Histogram(AUTH_BUCKETS))
    listeners: dict[str, ListenerCounts] = field(default_factory=dict)
    reloads: Counter[str] = field(default_factory=Counter)
    """By result: `success`, `failure`."""
    reload_was_good: bool = True
    """Whether the last reload was put in force."""
    certificates: dict[str, float] = field(default_factory=dict)
    """When the certificate of each port ends, in seconds since 1970. The API's port is `http`."""

    def reloaded(self, *, good: bool) -> None:
        """Count a reload."""
        self.reloads["success" if good else "failure"] += 1
        self.reload_was_good = good

    def listener(self, name: str) -> ListenerCounts:
        """Return the counts of one listener. It is the same object every time."""
        counts = self.listeners.get(name)
        if counts is None:
            counts = self.listeners[name] = ListenerCounts()
        return counts
