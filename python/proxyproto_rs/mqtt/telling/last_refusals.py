"""Keeps the last connections that each listener's acceptor has refused, for whoever wants to know why."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxyproto_rs import Refusal

_KEPT = 20  # of each listener


class LastRefusals:
    """The last refusals by listener, the newest first."""

    def __init__(self) -> None:
        self._listeners: dict[str, deque[tuple[str, Refusal]]] = {}

    def add(self, listener: str, reason: str, refusal: Refusal) -> None:
        """Keep a refusal. `reason` is ours: `blocked` where the acceptor says `denied`."""
        kept = self._listeners.setdefault(listener, deque(maxlen=_KEPT))
        kept.appendleft((reason, refusal))

    def of(self, listener: str) -> tuple[tuple[str, Refusal], ...]:
        """Return the reason and the refusal of each."""
        return tuple(self._listeners.get(listener, ()))
