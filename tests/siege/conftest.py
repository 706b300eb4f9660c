"""A siege: thousands of connections at once, more than half of them hostile. Nothing is left behind."""

from __future__ import annotations

import contextlib
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from leak_hooks import pytest_runtest_setup, pytest_runtest_teardown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxyproto_rs import Listener

__all__ = ["pytest_runtest_setup", "pytest_runtest_teardown"]  # pytest finds them here

# Both ends of 7,000 connections are in this process, and the rest of the tests.
DESCRIPTORS = 16_000


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Allow this process the file descriptors that a siege needs, whatever the shell's default is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(
            f"a siege takes {DESCRIPTORS} file descriptors, this process may have {hard} (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def echoing() -> Iterator[Callable[[Listener], None]]:
    """Serve a Listener in a thread until it is closed: each connection gets back what it sends first."""
    with contextlib.ExitStack() as stack:

        def start(listener: Listener) -> None:
            thread = threading.Thread(target=echo, args=(listener,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.close)

        yield start


def echo(listener: Listener) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # closed
        with sock:
            sock.sendall(sock.recv(100))
