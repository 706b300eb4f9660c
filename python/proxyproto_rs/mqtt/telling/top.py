"""The busiest addresses in bounded memory, by Space-Saving with counts that fade. `now` is an argument."""

from __future__ import annotations

import heapq

CAPACITY = 1000
HALF_LIFE = 3600.0  # seconds

_RESCALE_AT = 2.0**500  # a double overflows at 2**1024


class Top:
    """Counts keys. It remembers at most `capacity` of them. A count halves every `half_life` seconds.

    A new key takes the place and the count of the smallest one when all places are taken. So no count is too
    small, and none is too large by more than the smallest.
    """

    def __init__(self, capacity: int = CAPACITY, half_life: float = HALF_LIFE) -> None:
        self._capacity = capacity
        self._half_life = half_life
        self._counts: dict[str, float] = {}  # in a unit that grows with time, so that no count has to fade
        self._smallest: list[tuple[float, str]] = []  # each key once, with a present or earlier count
        self._start: float | None = None

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: str, now: float, amount: float = 1.0) -> None:
        """Count `amount` for the key. A clock that runs backwards counts as standing still."""
        weight = amount * self._unit(now)
        known = self._counts.get(key)
        if known is not None:
            self._counts[key] = known + weight
            return
        base = 0.0
        if len(self._counts) >= self._capacity:
            base = self._replace_smallest()
        self._counts[key] = base + weight
        heapq.heappush(self._smallest, (base + weight, key))

    def largest(self, now: float) -> list[tuple[str, float]]:
        """Return every key and its faded count, the largest first."""
        unit = self._unit(now)
        faded = [(key, count / unit) for key, count in self._counts.items()]
        return sorted(faded, key=lambda entry: (-entry[1], entry[0]))

    def _replace_smallest(self) -> float:
        while True:
            count, key = self._smallest[0]
            current = self._counts[key]
            if current > count:  # the count has grown since, so the key belongs elsewhere
                heapq.heapreplace(self._smallest, (current, key))
                continue
            heapq.heappop(self._smallest)
            del self._counts[key]
            return current

    def _unit(self, now: float) -> float:
        if self._start is None:
            self._start = now
        unit: float = 2.0 ** (max(0.0, now - self._start) / self._half_life)
        if unit > _RESCALE_AT:
            self._counts = {key: count / unit for key, count in self._counts.items()}
            self._smallest = [(count, key) for key, count in self._counts.items()]
            heapq.heapify(self._smallest)
            self._start = now
            return 1.0
        return unit
