"""Places for several checks at a time: how many an address has, who is next, and how long a wait is expected to be.

What holds for one place is in test_check_queue.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.model.reasons import Refuse
from proxyproto_rs.mqtt.policy.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

A, B, C, D = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"


class Checks:
    """Checks that end when a test says so."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ends: dict[str, list[asyncio.Event]] = {}

    async def come(self, *addresses: str, patience: float | None = None, is_known: bool = False) -> None:
        for address in addresses:
            self._tasks.append(asyncio.create_task(self._check(address, patience, is_known=is_known)))
        await self.settled()

    async def end(self, *addresses: str) -> None:
        for address in addresses:
            self._ends[address].pop(0).set()
        await self.settled()

    async def settled(self) -> None:
        for _ in range(5):  # a check that ends lets another begin
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _check(self, address: str, patience: float | None, *, is_known: bool) -> None:
        async with self.turns.taken(address, patience, is_known=is_known):
            self.begun.append(address)
            ended = asyncio.Event()
            self._ends.setdefault(address, []).append(ended)
            await ended.wait()


@contextlib.asynccontextmanager
async def checks(places: int, seconds: float = 0.0) -> AsyncIterator[Checks]:
    """Checks in so many places; the last one has taken so long."""
    times = iter([0.0, seconds])
    turns = Turns(places, clock=lambda: next(times, seconds))
    async with turns.taken("", None):
        pass
    checks = Checks(turns)
    try:
        yield checks
    finally:
        await checks.close()
        assert not turns._taken, "every place was given back"
        assert not len(turns)


async def test_one_address_has_a_quarter_of_the_places() -> None:
    async with checks(8) as those:
        await those.come(A, A, A, A)
        assert those.begun == [A, A]
        await those.come(B, B, B, C)
        assert those.begun == [A, A, B, B, C]
        await those.end(A)
        assert those.begun == [A, A, B, B, C, A]


@pytest.mark.parametrize("places", [1, 3])
async def test_with_few_places_an_address_has_one(places: int) -> None:
    async with checks(places) as those:
        await those.come(A, A, A)
        assert those.begun == [A]


async def test_a_place_goes_to_the_next_address_that_may_have_more() -> None:
    async with checks(4) as those:
        await those.come(A, A, B, B, C, D)  # A and B wait for themselves
        assert those.begun == [A, B, C, D]
        await those.come("192.0.2.5")
        await those.end(C)
        assert those.begun[4:] == ["192.0.2.5"]
        await those.end(B)
        assert those.begun[5:] == [B]


async def test_who_is_known_goes_before_strangers_and_waits_for_none_of_them() -> None:
    async with checks(1, seconds=2.0) as those:
        await those.come(A, B, C)
        await those.come(D, "192.0.2.5", patience=4.0, is_known=True)  # after A and one more
        with pytest.raises(Refuse, match=r"this one would wait 6\.0 s"):
            async with those.turns.taken("192.0.2.6", 5.9, is_known=True):
                pass
        with pytest.raises(Refuse, match=r"this one would wait 10\.0 s"):
            async with those.turns.taken("192.0.2.6", 9.9):
                pass
        for address in (A, D, "192.0.2.5", B):
            await those.end(address)
        assert those.begun == [A, D, "192.0.2.5", B, C]


async def test_known_ones_leave_their_places_to_strangers_who_may_have_them() -> None:
    async with checks(4) as those:
        await those.come(A, A, is_known=True)
        await those.come(B, C)
        assert those.begun == [A, B, C]


async def test_more_places_are_taken_at_once_and_fewer_when_they_come_back() -> None:
    async with checks(1) as those:
        await those.come(A, B, C)
        assert those.begun == [A]
        those.turns.resize(2)
        await those.settled()
        assert those.begun == [A, B]
        those.turns.resize(1)
        await those.end(A)
        assert those.begun == [A, B]
        await those.end(B)
        assert those.begun == [A, B, C]


EXPECTED = [
    # places, who has come before, who comes, what it would wait
    (4, [A, B, C, D], "192.0.2.5", 0.5),
    (4, [A, B, C, D, "192.0.2.5"], "192.0.2.6", 1.0),
    (4, [A, A], A, 4.0),  # only after its own two, whatever is free
    (4, [A, A, A, B, C, D], "192.0.2.5", 1.0),
]


@pytest.mark.parametrize(("places", "before", "who", "seconds"), EXPECTED)
async def test_who_would_wait_too_long_is_refused_at_once(
    places: int, before: list[str], who: str, seconds: float
) -> None:
    async with checks(places, seconds=2.0) as those:
        await those.come(*before)
        with pytest.raises(Refuse, match=f"this one would wait {seconds} s") as busy:
            async with those.turns.taken(who, seconds - 0.01):
                pass
        assert busy.value.reason == "busy"
        waiting = len(those.turns)
        await those.come(who, patience=seconds + 0.01)
        assert len(those.turns) == waiting + 1
