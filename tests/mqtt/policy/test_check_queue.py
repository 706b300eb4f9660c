"""The queue of slow checks: whose turn it is, who is refused, and that no turn is lost."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.model.reasons import Refuse
from proxyproto_rs.mqtt.policy.check_queue import CheckQueue
from proxyproto_rs.mqtt.policy.turns import Turns

from ..peers import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def check(self) -> None:
        """A check that takes a second."""
        self.now += 1


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(clock: Clock) -> AsyncIterator[CheckQueue]:
    opened = CheckQueue("test-checks", clock=clock)
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def held(queue: CheckQueue, address: str = "192.0.2.99") -> AsyncIterator[None]:
    """While the block runs, so does a check."""
    begun, end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def check() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert end.wait(WAIT)

    task = asyncio.create_task(queue.run(check, address=address))
    await begun.wait()
    try:
        yield
    finally:
        end.set()
        await task


async def wait_in(queue: CheckQueue, address: str, **options: Any) -> asyncio.Task[str]:
    """Put a check of an address into the queue. Its result is the address."""
    task = asyncio.create_task(queue.run(lambda: address, address=address, **options))
    await asyncio.sleep(0)
    return task


TURNS = [
    ("in-order", [A, B, C], [A, B, C]),
    ("one-each", [A, A, A, B, C, B], [A, B, C, A, B, A]),
    ("one-for-a-64", ["2001:db8::1", "2001:db8::2", A], ["2001:db8::1", A, "2001:db8::2"]),
    ("unix", ["/run/a.sock", "/run/a.sock", ""], ["/run/a.sock", "", "/run/a.sock"]),
]


@pytest.mark.parametrize(("waiting", "turns"), [row[1:] for row in TURNS], ids=[row[0] for row in TURNS])
async def test_addresses_take_turns(waiting: list[str], turns: list[str], queue: CheckQueue) -> None:
    done: list[str] = []
    async with held(queue):
        tasks = [await wait_in(queue, address) for address in waiting]
        for task in tasks:
            task.add_done_callback(lambda task: done.append(task.result()))
    await asyncio.gather(*tasks)
    assert done == turns


async def test_who_would_wait_too_long_is_refused_at_once(clock: Clock, queue: CheckQueue) -> None:
    await queue.run(clock.check)
    async with held(queue):
        first = [await wait_in(queue, A, patience=2.5) for _ in range(2)]  # 1 s, 2 s
        with pytest.raises(Refuse, match=r"2 passwords wait; this one would wait 3\.0 s") as busy:
            await queue.run(clock.check, address=A, patience=2.5)
        assert busy.value.reason == "busy"
        other = await wait_in(queue, B, patience=2.5)  # only one of the other address goes before it
    assert await asyncio.gather(*first, other) == [A, A, B]


async def test_who_has_waited_too_long_is_refused(queue: CheckQueue) -> None:
    async with held(queue):
        with pytest.raises(Refuse, match=r"the password was not checked within 0\.001 s"):
            await queue.run(int, address=A, patience=0.001)
        assert not len(queue)
    assert await queue.run(int) == 0


async def test_the_queue_is_bounded(queue: CheckQueue) -> None:
    async with held(queue):
        waiting = [await wait_in(queue, f"10.0.{n // 250}.{n % 250}") for n in range(1000)]
        with pytest.raises(Refuse, match="1000 passwords wait"):
            await queue.run(int, address=A)
    await asyncio.gather(*waiting)


async def test_who_goes_leaves_the_queue(queue: CheckQueue) -> None:
    async with held(queue):
        gone, stays = await wait_in(queue, A), await wait_in(queue, B)
        gone.cancel()
        await asyncio.wait((gone,))
        assert len(queue) == 1
    assert await stays == B


async def test_who_goes_when_the_turn_has_come_passes_it_on() -> None:
    class Cancelling(Turns):
        def _next(self) -> None:
            super()._next()
            gone.cancel()

    queue = CheckQueue("test-checks")
    queue._turns = Cancelling(1)
    async with held(queue):
        gone, stays = await wait_in(queue, A), await wait_in(queue, B)
    assert await stays == B
    assert gone.cancelled()
    assert await queue.run(int) == 0
    await queue.close()


async def test_a_check_that_raises_ends_its_turn(queue: CheckQueue) -> None:
    with pytest.raises(ZeroDivisionError):
        await queue.run(lambda: 1 // 0)
    assert await queue.run(int) == 0


async def test_closing_refuses_who_waits(clock: Clock) -> None:
    queue = CheckQueue("test-checks", clock=clock)
    async with held(queue):
        waiting = await wait_in(queue, A)
        closing = asyncio.create_task(queue.close())
        with pytest.raises(Refuse, match="the broker stops"):
            await waiting
    await closing
    with pytest.raises(Refuse, match="the broker stops"):
        await queue.run(int)
