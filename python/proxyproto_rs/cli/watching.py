"""What `--watch` waits for: an event of the broker. Where none can be had, it looks again every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from .colours import printable
from .trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

EVERY = 2.0
"""Seconds between two looks while no events are heard."""
QUIET = 10.0
"""Seconds between two looks while events are heard and nothing happens: counters move without an event."""
SHORTEST = 1.0
"""Seconds between two looks, however much happens: a look at 100,000 sessions takes the broker 0.1 s."""


class Events(Protocol):
    """What has events: `operating.Api`."""

    def events(self) -> Iterator[bytes]:
        """Yield the lines of the events. Raises Trouble."""


class Watch:
    """Hears the events of a broker in a thread of its own, which ends with the program."""

    def __init__(self, api: Events) -> None:
        self._api = api
        self._happened = threading.Event()
        self._ended = threading.Event()
        self._hears = False
        self._is_lively = False
        threading.Thread(target=self._listen, name="events", daemon=True).start()

    def looks(self, ask: Callable[[], Any]) -> Generator[Any, None, None]:
        """Yield what there is, again and again. A broker that is away is told once, and asked until it is back.

        Raises Trouble if the broker cannot be asked at first, and if it refuses.
        """
        try:
            found, away = ask(), False
            while True:
                if not away:
                    yield found
                self._wait()
                try:
                    found, away = ask(), False
                except Trouble as trouble:
                    if trouble.is_refusal:
                        raise
                    if not away:
                        sys.stderr.write(f"proxyproto-rs: {printable(str(trouble))}; trying again\n")
                    away = True
        finally:
            self._ended.set()

    def _wait(self) -> None:
        started = time.monotonic()
        # A refused client is in its list a little later than its event is told. So another look follows soon.
        self._is_lively = self._happened.wait(EVERY if self._is_lively or not self._hears else QUIET)
        if self._is_lively:
            self._happened.clear()
            time.sleep(max(0.0, started + SHORTEST - time.monotonic()))

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                for line in self._api.events():
                    self._hears = True
                    if line.startswith(b"event:"):
                        self._happened.set()
            except Trouble as trouble:
                if trouble.is_refusal:
                    return
            self._hears = False
            self._ended.wait(EVERY)
            self._happened.set()  # whatever was missed meanwhile
