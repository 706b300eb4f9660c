"""An event that one task waits for with a timeout.

Below Python 3.12, `asyncio.wait_for` loses a cancellation that comes together with the event. A task that
waits in a loop would then never end, and a shutdown would wait for it.
"""

from __future__ import annotations

import asyncio


class Wakeup:
    """An event. Anybody in the event loop sets it; one task waits for it."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the task, now or when it next waits."""
        self._set = True
        _finish(self._waiter)

    def clear(self) -> None:
        """Reset the event, so that the next `wait` waits."""
        self._set = False

    async def wait(self, seconds: float) -> bool:
        """Wait until the event is set, for at most `seconds`. Return whether it is set."""
        if not self._set and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, _finish, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._set


def _finish(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
