"""Fixtures of the tests with other people's servers, proxies and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import leaks
from interop import certificates
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

# The leak checks skip these. Twisted's reactors and the threaded server of websockets leave pipes of their own open, and
# the tests of pages open nothing.
_NOT_LOOKED_AT = ("test_twisted.py", "websockets-threads", "test_pages.py")


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    """Certificates for both ends of TLS."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A Listener that believes the proxies of this machine."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        yield listener


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    if _is_looked_at(item):
        leaks.setup(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if _is_looked_at(item):
        leaks.teardown(item)
    return outcome


def _is_looked_at(item: pytest.Item) -> bool:
    return not any(name in item.nodeid for name in _NOT_LOOKED_AT)
