"""Measurements in rounds: each round measures every contestant. A ratio compares two results of the same round.

Machines are noisy, but measurements close in time have the same noise. So each round gives a ratio, and the median over
the rounds counts. The quartiles say how much the ratio varied.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def in_turns(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each contestant once in each round. Each round starts with another one."""
    names = list(contestants)
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            results[name].append(contestants[name]())
    return results


class Spread:
    """A median and its quartiles."""

    def __init__(self, values: Iterable[float]) -> None:
        values = sorted(values)
        self.values = values
        self.median = statistics.median(values)
        self.low, _, self.high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the ratio of two contestants, round by round."""
    return Spread(mine / other for mine, other in zip(ours, theirs, strict=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that docs/benchmarks.md can hold as it is."""
    print("| " + " | ".join(columns) + " |")
    print("|---" + "|---:" * (len(columns) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    print()
