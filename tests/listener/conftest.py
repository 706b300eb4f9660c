"""Listener tests run on asyncio and on uvloop, and leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import leaks
from leak_hooks import (
    listener,
    loop_errors,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = [
    "listener",
    "loop_errors",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
]  # pytest finds them here


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return leaks.loop_factories()
