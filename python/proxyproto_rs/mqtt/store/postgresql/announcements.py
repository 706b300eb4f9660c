"""Hears at once what other nodes have changed or ask for. The polls remain what counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from .database import ERRORS
from .schema import Connection

_AGAIN_SECONDS = 1.0


class Announcements:
    """Calls those who `hear`. `start` listens until `close`, and connects again as often as it must."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._hearers: dict[str, list[Callable[[str | None], None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    def hear(self, channel: str, heard: Callable[[str | None], None]) -> None:
        """Call `heard` with what is said, and with None whenever something may have been said unheard."""
        self._hearers.setdefault(channel, []).append(heard)
        self._more.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="proxyproto-rs store announcements")

    async def close(self) -> None:
        """Listen no longer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            # Whoever writes or polls reports a database that is away, so that nobody needs to hear it from here.
            with contextlib.suppress(*ERRORS):
                await self._listen()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: self._more.set())
            listening: set[str] = set()
            while not connection.is_closed():
                self._more.clear()
                for channel in self._hearers.keys() - listening:
                    await connection.add_listener(channel, self._notified)
                    listening.add(channel)
                    self._say(channel, None)  # something may have been said before we listened
                await self._more.wait()
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._say(channel, str(payload))

    def _say(self, channel: str, said: str | None) -> None:
        for heard in self._hearers[channel]:
            heard(said)
