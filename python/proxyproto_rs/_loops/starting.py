"""What `Listener.create_server` and `start_server` return: a coroutine that is an asynchronous context manager too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast

from .server import Server


class StartingServer(Coroutine[Any, Any, Server]):
    """A server that starts when this is awaited, or entered with ``async with``.

    It is a coroutine to `asyncio.create_task` and to all others that want one.
    """

    __slots__ = ("_coroutine", "_server")

    _server: Server

    def __init__(self, coroutine: Coroutine[Any, Any, Server], called: Callable[..., object]) -> None:
        """Start what `coroutine` returns. If nobody awaits this, `coroutine` warns under the name of `called`."""
        self._coroutine = coroutine
        # Type checkers do not know these of a coroutine.
        named = cast("Any", coroutine)
        named.__name__, named.__qualname__ = called.__name__, called.__qualname__

    def __await__(self) -> Generator[Any, Any, Server]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> Server:
        """Start the server and return it."""
        self._server = await self._coroutine
        return await self._server.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        """Close the server, and wait until it is closed."""
        await self._server.__aexit__(*error)

    def send(self, value: Any, /) -> Any:
        """Do what a coroutine's method does."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Do what a coroutine's method does."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Do what a coroutine's method does."""
        self._coroutine.close()

    if not TYPE_CHECKING:  # a type checker shall see that this is no Server

        def __getattr__(self, name: str) -> Any:
            """Show a task and a debugger where it is: the name, the code and the frame of the coroutine."""
            return getattr(self._coroutine, name)
