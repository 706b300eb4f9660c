"""async for over a Listener, and waiting for it on a loop of one's own."""

from __future__ import annotations

import asyncio

import pytest

from peers import CLIENT, LOCAL, V2, connected
from proxyproto_rs import Listener, ProxiedSocket
from served import HEADER, Echo


async def test_iterating_gives_connections_until_closed(listener: Listener) -> None:
    addresses = []
    async with connected(listener.getsockname(), V2), connected(listener.getsockname(), LOCAL), listener:
        async for sock in listener:
            with sock:
                assert not sock.getblocking()
                addresses.append(sock.getpeername()[0])
            if len(addresses) == 2:
                listener.close()
    assert sorted(addresses) == ["127.0.0.1", CLIENT[0]]
    assert listener.fileno() == -1


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_waiting_iterations_end(listener: Listener, end: str) -> None:
    async def iterate() -> list[ProxiedSocket]:
        return [sock async for sock in listener]

    iterating = [asyncio.create_task(iterate()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(getattr(listener, end))
    assert await asyncio.gather(*iterating) == [[], [], []]


async def test_a_cancelled_iteration_loses_nothing(listener: Listener) -> None:
    waiting = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with connected(listener.getsockname(), V2):
        sock = await anext(listener)
        sock.close()
        assert sock.header == HEADER


async def test_iteration_takes_up_refusals() -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()
    async with Listener(
        "127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=lambda refusal: refused.put_nowait(refusal.reason)
    ) as listener:
        accepting = asyncio.ensure_future(anext(listener))
        async with connected(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n"):
            assert await refused.get() == "missing-header"
        assert not accepting.done()
        async with connected(listener.getsockname(), V2):
            (await accepting).close()


async def test_a_loop_that_knows_nothing_of_us(listener: Listener) -> None:
    """trio, anyio and others use it like this: wait until the fd is readable, then try to accept."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[ProxiedSocket] = loop.create_future()

    def readable() -> None:
        sock = listener.try_accept()
        if sock is not None:
            accepted.set_result(sock)

    loop.add_reader(listener.fileno(), readable)
    try:
        async with connected(listener.getsockname(), V2):
            with await accepted as sock:
                assert sock.getpeername() == CLIENT
    finally:
        loop.remove_reader(listener.fileno())


def test_a_new_loop_serves_after_another_has_ended(listener: Listener) -> None:
    """A loop that is closed while it serves releases what it held."""

    async def begin() -> None:
        await listener.create_server(asyncio.Protocol)

    async def serve() -> bytes:
        made: asyncio.Queue[Echo] = asyncio.Queue()
        async with await listener.create_server(lambda: Echo(made)):
            async with connected(listener.getsockname(), V2, b"x") as (reader, _):
                data = await reader.readexactly(1)
            await (await made.get()).lost
        return data

    for coroutine in (begin(), begin()):
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(coroutine)
        loop.close()
    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(serve()) == b"x"
    loop.close()
