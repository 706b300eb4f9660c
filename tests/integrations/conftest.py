"""Tests of the modules for other people's servers and frameworks. Each test must leave no fd, thread or task."""

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
    return {**leaks.loop_factories(), "proxyproto_rs.uvloop": _new_loop}


def _new_loop() -> asyncio.AbstractEventLoop:
    from proxyproto_rs.uvloop import new_event_loop

    return leaks.watched(new_event_loop())
