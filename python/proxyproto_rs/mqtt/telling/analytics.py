"""The busiest real addresses, and the last 24 hours minute by minute. `now` is an argument."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from ..model.networks import network_text, parse_address, parse_network
from .top import Top

if TYPE_CHECKING:
    from collections.abc import Iterable

By = Literal["connects", "refused", "sessions", "bytes"]

_MINUTES = 24 * 60
_IPV6_PREFIX = {32: 128, 24: 64}  # IPv4 prefix -> IPv6 prefix that stands for the same


@dataclass(frozen=True, slots=True)
class TopEntry:
    """One address or network, and its count. Counts fade with a half-life of an hour."""

    address: str
    count: float


@dataclass(slots=True)
class Minute:
    """What happened in one minute. `ts` is its beginning in milliseconds since 1970."""

    ts: int
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How many clients were refused, by reason code."""
    sessions: int = 0
    """How many clients were connected at the last sample."""
    bytes: int = 0
    """Bytes in and out."""


class Analytics:
    """Counts clients as they come and go. Every method takes the time in seconds since 1970."""

    def __init__(self) -> None:
        self._connects = Top()
        self._refused = Top()
        self._bytes = Top()
        self._minutes: deque[Minute] = deque(maxlen=_MINUTES)
        self._bytes_seen = 0

    def connected(self, address: str, now: float) -> None:
        """Count a client that was let in."""
        self._connects.add(address, now)
        self._minute(now).accepted += 1

    def refused(self, address: str, reason: str, now: float, count: int = 1) -> None:
        """Count `count` refused clients."""
        self._refused.add(address, now, count)
        refused = self._minute(now).refused
        refused[reason] = refused.get(reason, 0) + count

    def disconnected(self, address: str, transferred: int, now: float) -> None:
        """Count the bytes that an ended connection has transferred."""
        if transferred:
            self._bytes.add(address, now, transferred)

    def sample(self, sessions: int, bytes_total: int, now: float) -> None:
        """Take over the number of sessions and the total of bytes. Call it a few times a minute."""
        minute = self._minute(now)
        minute.sessions = sessions
        minute.bytes += max(0, bytes_total - self._bytes_seen)
        self._bytes_seen = bytes_total

    def top(
        self,
        by: By,
        now: float,
        *,
        prefix: int = 32,
        limit: int = 20,
        live: Iterable[tuple[str, int]] = (),
        elsewhere: Iterable[tuple[str, float]] = (),
    ) -> tuple[TopEntry, ...]:
        """Return the busiest addresses (`prefix` 32) or networks (`prefix` 24, which is /64 for IPv6).

        `live` has the address and the bytes of each open connection, `elsewhere` what others have counted.

        Raises ValueError for an unknown `by` or `prefix`.
        """
        return rank([*self.counted(by, now, live), *elsewhere], prefix=prefix, limit=limit)

    def counted(self, by: By, now: float, live: Iterable[tuple[str, int]] = ()) -> list[tuple[str, float]]:
        """Return the counts for `rank`, with those of open connections as for `top`. Raises ValueError."""
        if by not in get_args(By):
            raise ValueError(f"by must be one of {', '.join(get_args(By))} (got {by!r})")
        if by == "connects":
            return self._connects.largest(now)
        if by == "refused":
            return self._refused.largest(now)
        if by == "sessions":
            return [(address, 1.0) for address, _ in live]
        return [*self._bytes.largest(now), *((address, float(transferred)) for address, transferred in live)]

    def history(self) -> tuple[Minute, ...]:
        """Return the minutes of the last 24 hours in which anything happened, oldest first."""
        return tuple(self._minutes)

    def _minute(self, now: float) -> Minute:
        ts = int(now // 60) * 60_000
        if not self._minutes or self._minutes[-1].ts < ts:
            sessions = self._minutes[-1].sessions if self._minutes else 0
            self._minutes.append(Minute(ts, sessions=sessions))
            while self._minutes[0].ts <= ts - _MINUTES * 60_000:
                self._minutes.popleft()
        return self._minutes[-1]


def rank(counted: Iterable[tuple[str, float]], *, prefix: int = 32, limit: int = 20) -> tuple[TopEntry, ...]:
    """Add up counts by address or network, and return the largest. Raises ValueError for an unknown `prefix`.

    100,000 addresses take half a second of processor time or more. It may be called in any thread.
    """
    if prefix not in _IPV6_PREFIX:
        raise ValueError(f"prefix must be 32 or 24 (got {prefix})")
    counts: dict[str, float] = {}
    for address, count in counted:
        key = grouped(address, prefix)
        counts[key] = counts.get(key, 0.0) + count
    largest = heapq.nsmallest(max(0, limit), counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(TopEntry(address, round(count, 3)) for address, count in largest)


def grouped(address: str, prefix: int) -> str:
    """Return the network of an address that `prefix` 24 stands for, or the address itself for 32."""
    parsed = parse_address(address)
    if parsed is None:
        return address
    bits = prefix if parsed.version == 4 else _IPV6_PREFIX[prefix]  # noqa: PLR2004 (IP version 4)
    if bits == parsed.max_prefixlen:
        return str(parsed)
    shift = parsed.max_prefixlen - bits
    number = int(parsed) >> shift << shift
    return network_text(parse_network(f"{type(parsed)(number)}/{bits}"))
