"""Running a blocking client beside an event loop of any kind, in a thread that is gone afterwards.

trio keeps the threads of `trio.to_thread` for a while.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


async def run_beside(client: Callable[[], None]) -> None:
    """Run it to its end, and raise what it raises."""
    raised: list[BaseException] = []
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            try:
                client()
            except BaseException as error:
                raised.append(error)

    with ours:
        thread = threading.Thread(target=run)
        thread.start()
        await anyio.wait_readable(ours)
        thread.join()
    if raised:
        raise raised[0]
