"""Waiting for an event with a timeout, without losing a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from proxyproto_rs.mqtt.tables.wakeup import Wakeup


async def test_it_wakes_the_waiting_task_and_one_that_waits_later() -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(60))
    await asyncio.sleep(0)
    wakeup.set()
    assert await waiting
    assert await wakeup.wait(60)
    wakeup.clear()
    assert not await wakeup.wait(0.001)
    assert not await wakeup.wait(0)


async def test_a_cancellation_together_with_the_event_is_not_lost() -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(60))
    await asyncio.sleep(0)
    wakeup.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
