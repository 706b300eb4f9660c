"""What create_server and start_server return: awaited, entered with ``async with``, or given to who wants a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from peers import V2, connected, turn_until
from proxyproto_rs import Listener, Server
from served import Echo

Start = Callable[[Listener], Any]


def create_server(listener: Listener) -> Any:
    return listener.create_server(lambda: Echo(asyncio.Queue()))


def start_server(listener: Listener) -> Any:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    return listener.start_server(echo)


async def in_a_task(starting: Any) -> Any:
    return await asyncio.create_task(starting)


async def gathered(starting: Any) -> Any:
    return (await asyncio.gather(starting))[0]


async def with_a_timeout(starting: Any) -> Any:
    return await asyncio.wait_for(starting, 5)


async def as_a_future(starting: Any) -> Any:
    return await asyncio.ensure_future(starting)


async def awaited(starting: Any) -> Any:
    return await starting


pytestmark = pytest.mark.parametrize("start", [create_server, start_server])


async def assert_serves(server: Server, listener: Listener) -> None:
    assert isinstance(server, Server)
    assert server.is_serving()
    async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
        assert await reader.readexactly(4) == b"ping"
    await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.parametrize("run", [awaited, in_a_task, gathered, with_a_timeout, as_a_future])
async def test_it_is_a_coroutine(
    listener: Listener, start: Start, run: Callable[[Any], Awaitable[Server]]
) -> None:
    async with await run(start(listener)) as server:
        await assert_serves(server, listener)
    assert not server.is_serving()


async def test_it_is_entered_without_await(listener: Listener, start: Start) -> None:
    async with start(listener) as server:
        await assert_serves(server, listener)
    assert not server.is_serving()
    assert listener.fileno() == -1


async def test_an_error_in_the_block_closes_the_server(listener: Listener, start: Start) -> None:
    with pytest.raises(KeyError):
        async with start(listener) as server:
            raise KeyError
    assert not server.is_serving()


async def test_inspection_takes_it_for_a_coroutine(listener: Listener, start: Start) -> None:
    starting = start(listener)
    assert inspect.isawaitable(starting)
    assert asyncio.iscoroutine(starting)
    assert inspect.getcoroutinestate(starting) == inspect.CORO_CREATED
    starting.close()
    assert inspect.getcoroutinestate(starting) == inspect.CORO_CLOSED


async def test_a_task_shows_what_it_runs(listener: Listener, start: Start) -> None:
    task = asyncio.create_task(start(listener))
    assert f"{start.__name__}()" in repr(task)
    (await task).close()


def test_asyncio_runs_it(start: Start) -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener:
        assert isinstance(asyncio.run(start(listener)), Server)


async def test_it_warns_when_nobody_awaits_it(listener: Listener, start: Start) -> None:
    with pytest.warns(RuntimeWarning, match=f"coroutine 'Listener.{start.__name__}' was never awaited"):
        start(listener)  # nothing keeps it
    assert not listener.stats().open
    assert listener.try_accept() is None


async def test_it_is_awaited_once(listener: Listener, start: Start) -> None:
    starting = start(listener)
    async with starting:
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await starting


async def test_what_is_wrong_is_raised_when_it_is_awaited(listener: Listener, start: Start) -> None:
    listener.close()
    starting = start(listener)
    with pytest.raises(OSError, match="the listener is closed"):
        async with starting:
            pytest.fail("entered")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_task_runs_it(listener: Listener, start: Start) -> None:
    task: asyncio.Task[Server] = asyncio.eager_task_factory(asyncio.get_running_loop(), start(listener))  # type: ignore[attr-defined]
    (await task).close()
