"""The front of the servers runs on uvloop too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import leaks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return leaks.loop_factories()
