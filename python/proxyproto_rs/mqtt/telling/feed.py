"""Tells those who listen what happens, as it happens. Nobody is waited for: who is slow misses events, and is told so."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

LISTENERS = 1000
"""How many may listen at the same time."""
KEPT = 5000
"""How many of the last events are kept, where somebody may ask for them."""
WAITING = 256
"""How many events wait for one listener. They are shared by all, so each costs a reference."""


class Subscription:
    """One listener. Use it in the event loop only."""

    def __init__(self, feed: Feed) -> None:
        self.closed: bool = False
        """There will be no more events."""
        self._feed = feed
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._woken = asyncio.Event()

    def put(self, event: bytes) -> None:
        """Let an event wait, or count it as dropped if too many wait already."""
        if len(self._waiting) >= WAITING:
            self._dropped += 1
            self._feed.dropped += 1
        else:
            self._waiting.append(event)
        self._woken.set()

    def close(self) -> None:
        """Wake the listener for the last time."""
        self.closed = True
        self._woken.set()

    async def take(self, timeout: float) -> tuple[list[bytes], int]:
        """Wait for events, and return them and how many were dropped after them. At the timeout there are none."""
        if not self._waiting and not self.closed:
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), timeout)
            except asyncio.TimeoutError:
                return [], 0
        events, dropped = list(self._waiting), self._dropped
        self._waiting.clear()
        self._dropped = 0
        return events, dropped


class Feed:
    """Passes events on to all who listen. Without listeners it costs nothing."""

    def __init__(self) -> None:
        self.dropped: int = 0
        """Events that a listener has missed, over all listeners."""
        self.keeps: bool = False
        """Whether the last events are kept, for `of_address`."""
        self._subscriptions: set[Subscription] = set()
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody may see an event."""
        return self.keeps or bool(self._subscriptions)

    def keep(self, line: dict[str, Any]) -> None:
        """Keep an event, as a line of the audit log before it is encoded."""
        if self.keeps:
            self._kept.append(line)

    def of_address(self, address: str, most: int) -> list[dict[str, Any]]:
        """Return the last events whose client has this address, the newest first."""
        found: list[dict[str, Any]] = []
        for line in reversed(self._kept):
            client = line["client"]
            if client is not None and client[0] == address:
                found.append(line)
                if len(found) == most:
                    break
        return found

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription | None:
        """Add a listener; None if there are too many already."""
        if len(self._subscriptions) >= LISTENERS:
            return None
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a listener."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()

    def publish(self, event: str, line: str) -> None:
        """Pass on an event, and its JSON on one line."""
        data = f"event: {event}\ndata: {line}\n\n".encode()
        for subscription in self._subscriptions:
            subscription.put(data)
