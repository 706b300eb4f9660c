"""Whose login is checked next: clients take turns by address, few wait, and nobody waits long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING

from ..model.networks import client_network, network_text, parse_address
from ..model.reasons import Refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_MOST = 1000  # checks that wait
_SHARE = 4  # an address has at most this part of the places, so that one address never has them all
_SMOOTHING = 8  # the expected time of a check is a mean in which the last one has this part


_Line = OrderedDict[str, "deque[asyncio.Future[None]]"]
"""Who waits, by address; the first is next."""


class Turns:
    """Places for checks that run at the same time, and the queue in front of them.

    Clients take turns by their address (IPv6: by their /64), so an address with many checks does not delay the others.
    Those that are known go before strangers. A check that would not begin in time is refused at once. So nobody waits in
    vain, and few wait.
    """

    def __init__(self, places: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._clock = clock
        self._taken: Counter[str] = Counter()  # places by address
        self._known: _Line = OrderedDict()
        self._strangers: _Line = OrderedDict()
        self._count = 0  # of those that wait
        self._closed = False
        self._seconds = 0.0  # that a check takes

    def __len__(self) -> int:
        return self._count

    @contextlib.asynccontextmanager
    async def taken(
        self, address: str, patience: float | None, *, is_known: bool = False
    ) -> AsyncIterator[None]:
        """Wait for the address's turn, and hold a place while the block runs.

        `patience` is how long the check may wait for its turn, in seconds; None is for ever. `is_known` lets it go
        before those that are not.

        Raises:
            Refuse: `busy`: the check would wait longer or has waited longer, 1,000 are waiting, or the queue is closed.
        """
        whose = _whose(address)
        await self._turn(whose, patience, self._known if is_known else self._strangers)
        since = self._clock()
        try:
            yield
        finally:
            self._note(self._clock() - since)
            self._leave(whose)

    def resize(self, places: int) -> None:
        """Let so many checks run at the same time, from now on."""
        self._places = places
        self._next()

    def close(self) -> None:
        """Refuse the checks that wait, and all that come later."""
        self._closed = True
        for queue in (*self._known.values(), *self._strangers.values()):
            for turn in queue:
                _refuse(turn, "the broker stops")

    async def _turn(self, whose: str, patience: float | None, line: _Line) -> None:
        """Wait for a place. From then on it is the caller's until `_leave`."""
        if self._closed:
            raise Refuse("busy", "the broker stops")
        if self._taken.total() < self._places and self._may_have_more(whose):
            self._taken[whose] += 1  # nobody waits who could have had it
            return
        expected = self._expected(whose, line)
        if self._count >= _MOST or (patience is not None and expected > patience):
            raise Refuse(
                "busy", f"{self._count} passwords wait; this one would wait {expected:.1f} s to be checked"
            )
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        line.setdefault(whose, deque()).append(turn)
        self._count += 1
        timer = None
        if patience is not None:
            timer = loop.call_later(
                patience, _refuse, turn, f"the password was not checked within {patience:g} s"
            )
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave(whose)  # cancelled when its turn had come
            else:
                self._forget(whose, turn, line)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    @property
    def _most_each(self) -> int:
        return max(1, self._places // _SHARE)

    def _may_have_more(self, whose: str) -> bool:
        return self._taken[whose] < self._most_each

    def _expected(self, whose: str, line: _Line) -> float:
        """Return how long a new check would wait, in seconds. In each round every address has one turn."""
        own = len(line.get(whose, ()))
        ahead = len(line)
        if own:
            ahead = own + sum(min(len(queue), own + 1) for other, queue in line.items() if other != whose)
        if line is self._strangers:
            ahead += sum(map(len, self._known.values()))
        before_own_share = 1 + own + self._taken[whose] - self._most_each  # of its own, that must have ended
        return self._seconds * max((1 + ahead) / self._places, before_own_share / self._most_each)

    def _leave(self, whose: str) -> None:
        self._taken[whose] -= 1
        if not self._taken[whose]:
            del self._taken[whose]
        self._next()

    def _next(self) -> None:
        while self._taken.total() < self._places:
            line = self._known if any(map(self._may_have_more, self._known)) else self._strangers
            # No more addresses are passed over than there are places.
            whose = next(filter(self._may_have_more, line), None)
            if whose is None:
                return
            queue = line.pop(whose)
            turn = queue.popleft()
            self._count -= 1
            if queue:
                line[whose] = queue  # behind all others
            if not turn.done():
                self._taken[whose] += 1
                turn.set_result(None)

    def _forget(self, whose: str, turn: asyncio.Future[None], line: _Line) -> None:
        queue = line.get(whose)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._count -= 1
            if not queue:
                del line[whose]

    def _note(self, seconds: float) -> None:
        self._seconds += (seconds - self._seconds) / (_SMOOTHING if self._seconds else 1)


def _refuse(turn: asyncio.Future[None], detail: str) -> None:
    if not turn.done():
        turn.set_exception(Refuse("busy", detail))


def _whose(address: str) -> str:
    parsed = parse_address(address)
    return address if parsed is None else network_text(client_network(parsed, 64))
