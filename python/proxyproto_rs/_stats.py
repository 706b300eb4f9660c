"""ListenerStats: what became of a Listener's connections, in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["ListenerStats"]

# The outcomes of connections that were served; all others were refused.
_ACCEPTED = ("v1", "v2", "local", "unknown", "direct")


@dataclass(frozen=True, eq=False, repr=False)
class ListenerStats(Mapping[str, int]):
    """An immutable mapping from every outcome to the number of connections it met, with a few sums beside it.

    All outcomes are always there. A connection counts under exactly one of them, once its fate is known.
    """

    _counts: dict[str, int]
    pending: int
    """Connections whose header is not complete."""
    ready: int
    """Connections that wait to be accepted."""
    open: int
    """Connections that are served or ready."""
    pauses: int
    """How often accepting has paused because there were no file descriptors or no memory for more."""

    @property
    def accepted(self) -> int:
        """How many were served."""
        return sum(self._counts[outcome] for outcome in _ACCEPTED)

    @property
    def refused(self) -> int:
        """How many were not."""
        return sum(self._counts.values()) - self.accepted

    def __getitem__(self, outcome: str) -> int:
        return self._counts[outcome]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        counted = {outcome: count for outcome, count in self._counts.items() if count}
        return f"<{type(self).__name__} {counted} pending={self.pending} ready={self.ready} open={self.open}>"
