"""Limits how fast one session may publish. `now` is an argument; this module reads no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import Rate


class PublishRate:
    """A token bucket for each of the rates. A PUBLISH needs a token from each.

    A bucket holds `count` tokens and gains `count` in `seconds`. So a client that was silent may send `count`
    at once.
    """

    __slots__ = ("_buckets",)

    def __init__(self, rates: tuple[Rate, ...], now: float) -> None:
        self._buckets = [
            [float(rate.count), now, rate.count / rate.seconds, float(rate.count)] for rate in rates
        ]

    def delay(self, now: float) -> float:
        """Return the seconds until the next PUBLISH may be taken; 0 means at once."""
        longest = 0.0
        for bucket in self._buckets:
            tokens, since, per_second, capacity = bucket
            tokens = min(capacity, tokens + max(0.0, now - since) * per_second)
            bucket[0], bucket[1] = tokens, now
            if tokens < 1.0:
                longest = max(longest, (1.0 - tokens) / per_second)
        return longest

    def spend(self, now: float) -> None:
        """Count one PUBLISH."""
        self.delay(now)
        for bucket in self._buckets:
            bucket[0] -= 1.0
