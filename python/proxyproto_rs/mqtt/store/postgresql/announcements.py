"""Hears at once that another node has changed a block. The poll by revision remains what counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from .database import ERRORS
from .schema import Connection

_CHANNEL = "proxyproto_rs_blocks"
_AGAIN_SECONDS = 1.0


class Announcements:
    """Calls `heard` for every change that is not its own. `run` listens until cancelled, and connects again."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], own: str, heard: Callable[[], None]
    ) -> None:
        self._connect = connect
        self._own = own
        self._heard = heard

    async def run(self) -> None:
        """Listen until cancelled. While the database does not answer, nothing is heard."""
        while True:
            # Whoever writes or polls reports a database that is away, so that nobody needs to hear it from here.
            with contextlib.suppress(*ERRORS):
                await self._listen()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        connection = await self._connect()
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(_CHANNEL, self._notified)
            self._heard()  # something may have been said before we listened
            await lost.wait()
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._own:
            self._heard()
