"""What a Listener tells of the connections it refused: the records, and the lines in the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Refusal"]

logger = logging.getLogger("proxyproto_rs.listener")


@dataclass(frozen=True)
class Refusal:
    """Connections refused for the same reason from the same address."""

    reason: str
    """The outcome under which they are counted, such as ``"missing-header"``."""
    peer: Any
    """The TCP peer's address, in the socket module's shape; of the last one."""
    client: Any
    """The client's address from the header, in the socket module's shape; None where no header was read."""
    detail: str
    """What came, at which byte it went wrong, and what to do about it, in one line."""
    first_bytes: bytes
    """The first bytes the peer sent, at most 24 of them."""
    listener: str
    """The listening address, as in the log."""
    count: int
    """How many connections this stands for; 1 or more."""
    time: float
    """When the last one was refused, in seconds since the epoch."""


OnRefused = Callable[[Refusal], object]


class Refusals:
    """Tells the log and ``on_refused`` what the acceptor has gathered."""

    __slots__ = ("_lock", "_on_refused", "dropped")

    def __init__(self, on_refused: OnRefused | None) -> None:
        self.on_refused = on_refused
        self.dropped = 0
        self._lock = threading.RLock()

    @property
    def on_refused(self) -> OnRefused | None:
        return self._on_refused

    @on_refused.setter
    def on_refused(self, callback: OnRefused | None) -> None:
        if not (callback is None or callable(callback)):
            raise TypeError(f"on_refused must be callable or None, not {type(callback).__name__}")
        self._on_refused = callback

    def tell(self, records: list[Any], lines: list[tuple[int, str]], dropped: int) -> None:
        """Write the lines, call the callback: in the calling thread, which is one that accepts."""
        for level, line in lines:
            logger.log(level, "%s", line)
        if dropped:
            with self._lock:
                self.dropped += dropped
        if records and (on_refused := self.on_refused) is not None:
            for record in records:
                self._tell(on_refused, Refusal(*record))

    def _tell(self, on_refused: OnRefused, refusal: Refusal) -> None:
        try:
            on_refused(refusal)
        except Exception:
            # The thread came to accept a connection, and has one to take; this is not its fault.
            logger.exception("on_refused failed on %r", refusal)
