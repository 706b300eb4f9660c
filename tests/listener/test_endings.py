"""Nothing stays of a connection that ends before or while its handler starts; the table is in `endings`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from endings import CLIENTS, Ending, cases, reads_to_the_end, run_through
from proxyproto_rs import open_streams
from proxyproto_rs._loops import which
from served import on_asyncio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from proxyproto_rs import Listener, ProxiedSocket

each_ending = pytest.mark.parametrize(
    ("ending", "tls"),
    [pytest.param(ending, tls, id=name) for name, ending, tls in cases()],
)


@each_ending
async def test_nothing_stays(
    listener: Listener,
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    loop_errors: list[dict[str, Any]],
    ending: Ending,
    tls: bool,
) -> None:
    await serve_through(listener, ending, tls_contexts if tls else None, loop_errors)


@on_asyncio
@each_ending
async def test_nothing_stays_on_a_loop_that_is_not_known(
    listener: Listener,
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    loop_errors: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    ending: Ending,
    tls: bool,
) -> None:
    monkeypatch.setattr(which, "is_selector_loop", lambda _: False)
    await serve_through(listener, ending, tls_contexts if tls else None, loop_errors)


@on_asyncio
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@each_ending
async def test_nothing_stays_of_asyncios_own_server(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], ending: Ending, tls: bool
) -> None:
    """It goes on with some of these connections until the client ends them, and leaves some to the collector."""
    loop = asyncio.get_running_loop()
    # An error that somebody keeps holds the socket: its traceback has asyncio's frame, and that the socket.
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.set_debug(False)  # or asyncio itself keeps it

    async def serve(ending: Ending, keywords: dict[str, Any]) -> Any:
        if ending.factory is not None:
            return await loop.create_server(ending.factory, sock=listener, **keywords)
        assert ending.callback is not None
        return await asyncio.start_server(ending.callback, sock=listener, **keywords)

    await run_through(
        listener,
        ending,
        tls_contexts if tls else None,
        serve,
        clients_leave=True,
        collect=ending.asyncio_collects,
    )


@pytest.mark.parametrize(
    ("ending", "tls"),
    [
        pytest.param(ending, tls, id=name)
        for name, ending, tls in cases()
        if ending.callback is reads_to_the_end
    ],
)
async def test_nothing_stays_of_open_streams(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], ending: Ending, tls: bool
) -> None:
    async def serve(ending: Ending, keywords: dict[str, Any]) -> Any:
        return Iteration(listener, keywords)

    await run_through(listener, ending, tls_contexts if tls else None, serve)


class Iteration:
    """A server that takes one connection after the other and makes streams of each."""

    def __init__(self, listener: Listener, keywords: dict[str, Any]) -> None:
        self.sockets = (listener,)
        self._keywords = keywords
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._serve(listener))

    def is_serving(self) -> bool:
        return self.sockets[0].fileno() >= 0

    def close(self) -> None:
        self.sockets[0].close()

    async def wait_closed(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, listener: Listener) -> None:
        async for conn in listener:
            self._start(self._handle(conn))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, conn: ProxiedSocket) -> None:
        with contextlib.suppress(OSError):
            await reads_to_the_end(*await open_streams(conn, **self._keywords))


async def serve_through(
    listener: Listener,
    ending: Ending,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None,
    loop_errors: list[dict[str, Any]],
) -> None:
    """Let the Listener's own server serve the clients, and see which errors it reports."""

    async def serve(ending: Ending, keywords: dict[str, Any]) -> Any:
        if ending.factory is not None:
            return await listener.create_server(ending.factory, **keywords)
        assert ending.callback is not None
        return await listener.start_server(ending.callback, **keywords)

    asyncio.get_running_loop().set_debug(False)  # or it hears of each handshake that fails
    await run_through(listener, ending, contexts, serve)
    assert (len(loop_errors) >= 1) is (ending.errors >= 1), loop_errors
    assert len(loop_errors) <= ending.errors * CLIENTS, loop_errors
    loop_errors.clear()
