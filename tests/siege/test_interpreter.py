"""A thread that never releases the interpreter's lock delays no refusal and no deadline."""

from __future__ import annotations

import ctypes
import select
import subprocess
import sys
from pathlib import Path

from proxyproto_rs import Listener

STRANGERS = Path(__file__).with_name("strangers.py")


def test_refusals_and_deadlines_do_not_wait_for_the_interpreter() -> None:
    """This thread holds the interpreter's lock until the last connection has been refused."""
    count = 100
    options = {"trusted": ["127.0.0.0/8"], "header_timeout": 0.2, "deny": ["203.0.2.1"]}
    with Listener("127.0.0.1", 0, **options) as listener:  # type: ignore[arg-type]
        arguments = [sys.executable, str(STRANGERS), str(listener.getsockname()[1]), str(count)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as strangers:
            assert strangers.stdout is not None
            assert hold_the_lock_until_readable(strangers.stdout.fileno())
            assert strangers.stdout.read() == b"refused"
        stats = listener.stats()
        refused = {outcome: number for outcome, number in stats.items() if number}
        each = count // 5
        assert refused == {"timeout": 2 * each, "missing-header": each, "malformed": each, "denied": each}
        assert stats.pending == 0


class PollFd(ctypes.Structure):
    """``struct pollfd``."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def hold_the_lock_until_readable(fd: int) -> bool:
    """Wait without releasing the interpreter's lock, as functions called through ``PyDLL`` do.

    Return False if nothing came within 50 s. Nothing else in this process could end the wait.
    """
    poll_fd = PollFd(fd, select.POLLIN, 0)
    return bool(ctypes.PyDLL(None).poll(ctypes.byref(poll_fd), 1, 50_000) == 1)
