"""Waiting until a queue has shrunk."""

from __future__ import annotations

import asyncio

from proxyproto_rs.mqtt.backend.amqtt.watched_queue import WatchedQueue


async def test_a_short_queue_is_not_waited_for() -> None:
    await WatchedQueue().shrunk_to(0)


async def test_each_waits_for_its_own_size() -> None:
    queue, order = WatchedQueue(), []
    for item in range(4):
        queue.put_nowait(item)

    async def wait(size: int) -> None:
        await queue.shrunk_to(size)
        order.append((size, queue.qsize()))

    waiting = [asyncio.create_task(wait(size)) for size in (0, 2)]
    await asyncio.sleep(0)
    while not queue.empty():
        queue.get_nowait()
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == [(2, 2), (0, 0)]


async def test_a_waiter_that_gives_up_is_forgotten() -> None:
    queue = WatchedQueue()
    queue.put_nowait(1)
    waiting = asyncio.create_task(queue.shrunk_to(0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert queue.get_nowait() == 1
