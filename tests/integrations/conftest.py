"""Tests of what the package has for other people's servers and frameworks; they leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import leaks
from proxyproto_rs import Listener

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {**leaks.loop_factories(), "proxyproto_rs.uvloop": _new_loop}


def _new_loop() -> asyncio.AbstractEventLoop:
    from proxyproto_rs.uvloop import new_event_loop

    return leaks.watched(new_event_loop())


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
def loop_errors() -> list[dict[str, Any]]:
    """What went to the loop's exception handler; a test that expects it takes it out."""
    return leaks.loop_errors


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A Listener on loopback that trusts loopback, with everything else as it is by default."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        yield listener
