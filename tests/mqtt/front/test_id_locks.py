"""One holder at a time for each id, in order, even if some give up waiting."""

from __future__ import annotations

import asyncio

import pytest

from proxyproto_rs.mqtt.front.id_locks import IdLocks


async def test_in_order_and_nothing_is_kept() -> None:
    locks, order = IdLocks(), []

    async def use(number: int) -> None:
        await locks.acquire("dev")
        order.append(number)
        await asyncio.sleep(0)
        locks.release("dev")

    await asyncio.gather(*(use(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert not len(locks)


async def test_other_ids_do_not_wait() -> None:
    locks = IdLocks()
    await locks.acquire("one")
    await locks.acquire("two")
    locks.release("one")
    locks.release("two")
    assert not len(locks)


@pytest.mark.parametrize("released_first", [False, True])
async def test_a_cancelled_waiter_passes_the_lock_on(released_first: bool) -> None:
    locks = IdLocks()
    await locks.acquire("dev")
    quitter, next_one = (asyncio.create_task(locks.acquire("dev")) for _ in range(2))
    await asyncio.sleep(0)
    if released_first:
        locks.release("dev")
    quitter.cancel()
    await asyncio.gather(quitter, return_exceptions=True)
    if not released_first:
        locks.release("dev")
    await next_one
    locks.release("dev")
    assert not len(locks)
