"""What is found when a store is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Examined:
    """A store as it is. It was reached; what keeps it from being used stands in `missing`."""

    place: str
    """The file, or the connection URI without user, password and options."""
    server: str
    """The program that keeps it, with its version."""
    version: int
    """The version of its tables; 0: there are none."""
    wanted: int
    """The version that this program writes."""
    missing: tuple[str, ...] = ()
    """What may not be done, with the remedy."""
    clock_ahead: float | None = None
    """By how many seconds its clock is ahead of this machine's; None if it has none of its own."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """The rows of each table. In PostgreSQL numbers above 100,000 are estimates."""
    bytes: int = 0
