"""Folds repeated events into one with a count, and lets events be reported once in a period. `now` is an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

Event = TypeVar("Event")


@dataclass(slots=True)
class _Folded(Generic[Event]):
    since: float
    last: Event
    count: int


class Fold(Generic[Event]):
    """Gathers events with the same key for `seconds`. Then the last one stands for all, with their number.

    At most `capacity` keys are gathered. One more key makes the oldest one due early.
    """

    def __init__(self, seconds: float, capacity: int) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._gathered: OrderedDict[tuple[str, ...], _Folded[Event]] = OrderedDict()

    def add(self, key: tuple[str, ...], event: Event, count: int, now: float) -> list[tuple[Event, int]]:
        """Gather an event. Return the events to report now, each with its number."""
        told = self.due(now)
        known = self._gathered.get(key)
        if known is not None:
            known.last, known.count = event, known.count + count
            return told
        if len(self._gathered) >= self._capacity:
            _, oldest = self._gathered.popitem(last=False)
            told.append((oldest.last, oldest.count))
        self._gathered[key] = _Folded(now, event, count)
        return told

    def due(self, now: float) -> list[tuple[Event, int]]:
        """Return the events that were gathered for long enough, each with its number."""
        told = []
        while self._gathered:
            key, oldest = next(iter(self._gathered.items()))
            if oldest.since + self._seconds > now:
                break
            del self._gathered[key]
            told.append((oldest.last, oldest.count))
        return told

    def all(self) -> list[tuple[Event, int]]:
        """Return everything that is gathered, at the end."""
        told = [(folded.last, folded.count) for folded in self._gathered.values()]
        self._gathered.clear()
        return told


class OncePer:
    """Allows each key to be reported once in `seconds`. Remembers at most `capacity` keys."""

    def __init__(self, seconds: float, capacity: int) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._told: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def first(self, key: tuple[str, ...], now: float) -> bool:
        """Whether the key was not reported in the last `seconds`. From now on it counts as reported."""
        told = self._told.get(key)
        if told is not None and now < told + self._seconds:
            return False
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > self._capacity:
            self._told.popitem(last=False)
        return True
