"""What a test must not leave behind: file descriptors, threads, tasks, and errors in its loop.

A directory's conftest calls these from pytest's hooks of the same names, or imports the hooks of `leak_hooks`.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

loop_errors: list[dict[str, Any]] = []
"""What went to a loop's exception handler. A test that expects it takes it out."""

_loops: list[asyncio.AbstractEventLoop] = []
_REAPED_WITHIN = 2.0  # seconds; the kernel lists a thread for a moment after it has been joined
_FILES = pytest.StashKey[dict[str, str]]()
_THREADS = pytest.StashKey[frozenset[str]]()


def loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that listeners are tested on, for `pytest_asyncio_loop_factories`."""
    return {"asyncio": lambda: watched(asyncio.SelectorEventLoop()), "uvloop": _new_uvloop}


def setup(item: pytest.Item) -> None:
    """Note what is there before the test's fixtures are made."""
    _open_once()
    item.stash[_FILES] = open_files()
    item.stash[_THREADS] = _threads()
    loop_errors.clear()
    _loops.clear()


def call() -> None:
    """Look at the loops when the test function has returned, before its fixtures are gone."""
    tasks = [task for loop in _loops if not loop.is_closed() for task in asyncio.all_tasks(loop)]
    assert not tasks, f"tasks are left: {tasks}"
    assert not loop_errors, f"the loop's exception handler was called: {loop_errors}"


def teardown(item: pytest.Item) -> None:
    """Look at the process when the test's fixtures are gone."""
    if _left_files(item) or _left_threads(item):
        # The collector walks through everything that pytest holds, which takes 0.3 s. So it does not run after each test.
        gc.collect()
    deadline = time.monotonic() + _REAPED_WITHIN
    while _left_threads(item) and time.monotonic() < deadline:
        os.sched_yield()
    files, threads = _left_files(item), _left_threads(item)
    assert not files, f"file descriptors are left: {files}"
    assert not threads, f"threads are left: {threads}"


def _left_files(item: pytest.Item) -> dict[str, str]:
    return {fd: name for fd, name in open_files().items() if item.stash[_FILES].get(fd) != name}


def _left_threads(item: pytest.Item) -> frozenset[str]:
    before = item.stash[_THREADS]
    return _threads() - before


@functools.cache
def _open_once() -> None:
    """Open what libraries keep for the life of the process, such as libuv's signal pipe."""
    for name, make_loop in loop_factories().items():
        if name != "uvloop" or importlib.util.find_spec(name):
            loop = make_loop()
            # The first name starts libuv's pool of four threads, which stay. asyncio's end with the loop.
            first = loop.getaddrinfo("localhost", 0) if name == "uvloop" else asyncio.sleep(0)
            loop.run_until_complete(first)
            loop.close()


def _new_uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return watched(loop)


def watched(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_exception_handler(lambda _, context: loop_errors.append(context))
    _loops.append(loop)
    return loop


def open_files() -> dict[str, str]:
    """The file descriptors of this process, each with what it refers to."""
    files = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            files[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the listing's own fd
            continue
    return files


def _threads() -> frozenset[str]:
    # All of them, not only those that Python knows.
    return frozenset(task for task in os.listdir("/proc/self/task") if not _stays(task))


def _stays(task: str) -> bool:
    """Whether it is the thread of the crate futures-timer, which rmqtt starts once in a process."""
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="ascii") as name:
            return name.read() == "futures-timer\n"
    except OSError:  # it has ended meanwhile
        return True
