"""The queue of slow password checks: fair by address, bounded, and short."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..model.networks import client_network, network_text, parse_address
from ..model.reasons import Refuse

Result = TypeVar("Result")

_MOST = 1000  # checks that wait
_SMOOTHING = 8  # the expected time of a check is a mean in which the last one has this part
# The event loop goes before the thread where they share a core. With 200 wrong logins a second on one core of a busy
# machine, remembered logins took 28 ms in the median and 630 at most at the same priority, 8 and 105 with this one.
_NICE = 5


class CheckQueue:
    """Runs slow checks one by one, in a thread of its own.

    Clients take turns by their address (IPv6: by their /64), so an address with many checks does not delay the others.
    A check that would not begin in time is refused at once. So nobody waits in vain, and few wait.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread = ThreadPoolExecutor(1, name, _step_back)
        self._clock = clock
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._running = False
        self._closed = False
        self._seconds = 0.0  # that a check takes

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def run(
        self, check: Callable[[], Result], *, address: str = "", patience: float | None = None
    ) -> Result:
        """Run the check when it is the address's turn, and return its result.

        `patience` is how long the check may wait for its turn, in seconds; None is for ever.

        Raises:
            Refuse: `busy`: the check would wait longer or has waited longer, 1,000 are waiting, or the queue is closed.
        """
        await self._turn(_whose(address), patience)
        since = self._clock()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, check)
        finally:
            self._note(self._clock() - since)
            self._next()

    async def close(self) -> None:
        """Refuse the checks that wait, and wait for the one that runs."""
        self._closed = True
        for queue in self._waiting.values():
            for turn in queue:
                _refuse(turn, "the broker stops")
        await asyncio.to_thread(self._thread.shutdown)

    async def _turn(self, whose: str, patience: float | None) -> None:
        """Wait for the thread. From then on it is the caller's until `_next`."""
        if self._closed:
            raise Refuse("busy", "the broker stops")
        if not self._running:
            self._running = True
            return
        expected = self._expected(whose)
        if len(self) >= _MOST or (patience is not None and expected > patience):
            raise Refuse(
                "busy", f"{len(self)} passwords wait; this one would wait {expected:.1f} s to be checked"
            )
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(whose, deque()).append(turn)
        timer = None
        if patience is not None:
            timer = loop.call_later(
                patience, _refuse, turn, f"the password was not checked within {patience:g} s"
            )
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()  # cancelled when its turn had come
            else:
                self._leave(whose, turn)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expected(self, whose: str) -> float:
        """Return how long a new check would wait, in seconds. In each round every address has one turn."""
        own = len(self._waiting.get(whose, ()))
        others = (len(queue) for other, queue in self._waiting.items() if other != whose)
        return self._seconds * (1 + own + sum(min(waiting, own + 1) for waiting in others))

    def _next(self) -> None:
        while self._waiting:
            whose, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[whose] = queue  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._running = False

    def _leave(self, whose: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(whose)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[whose]

    def _note(self, seconds: float) -> None:
        self._seconds += (seconds - self._seconds) / (_SMOOTHING if self._seconds else 1)


def _refuse(turn: asyncio.Future[None], detail: str) -> None:
    if not turn.done():
        turn.set_exception(Refuse("busy", detail))


def _whose(address: str) -> str:
    parsed = parse_address(address)
    return address if parsed is None else network_text(client_network(parsed, 64))


def _step_back() -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # on Linux that is the thread alone
