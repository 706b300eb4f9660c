"""The tests of other readers' holes have a Listener, and must leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import leaks
from proxyproto_rs import Listener

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return leaks.loop_factories()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    leaks.setup(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    outcome = yield
    leaks.call()
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    leaks.teardown(item)
    return outcome


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A Listener on loopback that trusts loopback. All other options have their defaults."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        yield listener
