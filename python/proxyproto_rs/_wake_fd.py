"""The fd that is readable while a Listener has something, kept open for as long as somebody waits on it."""

from __future__ import annotations

import errno
import math
import os
import select
import threading

__all__ = ["WakeFd"]


class WakeFd:
    """A duplicate of the acceptor's wake fd.

    A thread in `poll` must not see its fd closed: the number may be another file's by the time it looks
    again, and it would sleep on that. So the last one out closes it. Closing the acceptor leaves its
    duplicates readable, which is how all who wait learn of it.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_pid", "_waiting")

    def __init__(self, fd: int) -> None:
        self._closed = True  # until there is something to close
        self._fd = os.dup(fd)
        self._closed = False
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._waiting = 0

    def fileno(self) -> int:
        return -1 if self._closed else self._fd

    def wait(self, timeout: float | None) -> bool:
        """Block until it is readable, at most `timeout` seconds; say whether it is. Closed is readable."""
        with self._lock:
            if self._closed:
                return True
            self._waiting += 1
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
        finally:
            with self._lock:
                self._waiting -= 1
                if self.fileno() < 0 and not self._waiting:
                    os.close(self._fd)

    def dup(self) -> WakeFd:
        """Return another one, for an event loop to register and to close in its own time.

        Raises:
            OSError: The Listener is closed (EBADF), or there are too many open files.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return WakeFd(self._fd)

    def close(self) -> None:
        if os.getpid() != self._pid:
            self._close_in_child()
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._waiting:
                os.close(self._fd)

    def _close_in_child(self) -> None:
        # Who waited, or held the lock, did so in the parent.
        if not self._closed:
            self._closed = True
            os.close(self._fd)

    def __del__(self) -> None:
        if not self._closed:
            self.close()
