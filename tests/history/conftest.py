"""The tests of other readers' holes have a Listener, and must leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import leaks
from leak_hooks import listener, pytest_runtest_call, pytest_runtest_setup, pytest_runtest_teardown

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = [
    "listener",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
]  # pytest finds them here


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return leaks.loop_factories()
