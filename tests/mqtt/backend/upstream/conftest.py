"""The front of the servers runs on uvloop too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import leaks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = leaks.loop_factories()
    if (
        item.path.name == "test_rabbitmq.py"
    ):  # starting a node takes seconds, and the loop makes no difference to it
        return {"asyncio": factories["asyncio"]}
    return factories
