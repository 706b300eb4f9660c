"""pytest's hooks and the fixtures of a directory whose every test must leave nothing behind; its conftest imports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import leaks
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    """A Listener on loopback that trusts loopback. All other options have their defaults."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        yield listener
