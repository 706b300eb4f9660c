"""The fds of a Listener that are readable while it has something to take: one for waiting, one to show."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import threading

from ._core import _epoll_create, _epoll_forget, _epoll_watch

_LONGEST_POLL = 2**31 - 1  # milliseconds, in a C int


class WakeFd:
    """A duplicate of the acceptor's wake fd, which stays open for as long as somebody waits on it.

    A thread in `poll` must not see its fd closed: the number may be another file's by the time it looks
    again, and it would sleep on that. So the last one out closes it. Closing the acceptor leaves its
    duplicates readable, which is how all who wait learn of it.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_pid", "_waiting")

    def __init__(self, fd: int) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._closed = False
        # Signal handlers run in the middle of all this, and close Listeners.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._waiting = 0

    def fileno(self) -> int:
        return -1 if self._closed else self._fd

    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that made it."""
        return os.getpid() != self._pid

    def wait(self, timeout: float | None) -> bool:
        """Block until it is readable, at most `timeout` seconds; say whether it is. Closed is readable."""
        with self._lock:
            self._waiting += 1
        try:
            if self._closed:
                return True
            # Looked up each time: gevent puts one there that lets other greenlets run.
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            # A caller that has more time than poll can count comes again.
            return bool(poll.poll(None if timeout is None else math.ceil(min(timeout * 1000, _LONGEST_POLL))))
        finally:
            with self._lock:
                self._waiting -= 1
                self._let_go()

    def dup(self) -> WakeFd:
        """Return another one, for an event loop to register and to close in its own time.

        Raises:
            OSError: The Listener is closed (EBADF), or there are too many open files.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the listener is closed")
            return WakeFd(os.dup(self._fd))

    def close(self) -> None:
        if self.is_inherited():
            # Those who waited, or held the lock, did so in the parent.
            self._lock = threading.RLock()
            self._pid = os.getpid()
            self._waiting = 0
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._closed and self._fd >= 0 and not self._waiting:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        # Nobody waits any more, but an exception may have come between a wait and its `try`.
        self._waiting = 0
        self.close()


class ShownFd:
    """The fd of a Listener as others see it: readable as the wake fd is, until the Listener is drained.

    A listening socket has no such state. A server that polls a Listener, such as one that got it as ``sock``,
    would take it for a connection in each turn of its loop: a busy core, and a log full of the same error. An
    epoll set can be polled like any other fd, and what it watches can be taken out of it.

    It is no socket: accept(2), listen(2) and connect(2) on it fail.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_muted", "_pid", "_watched")

    def __init__(self, fd: int, wake_fd: WakeFd) -> None:
        """Put an epoll set in the place of `fd`, whose owner closes it, and watch `wake_fd`."""
        self._fd = fd
        self._watched = wake_fd.fileno()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._muted = False
        self._closed = False
        epoll = _epoll_create()
        try:
            _epoll_watch(epoll, self._watched)
            os.dup2(epoll, fd, inheritable=False)
        finally:
            os.close(epoll)

    def mute(self) -> None:
        """Make it unreadable until it is closed."""
        with self._lock:
            if not self._muted and not self._closed and self._is_ours():
                # Somebody who has gone behind the Listener may have closed it.
                with contextlib.suppress(OSError):
                    _epoll_forget(self._fd, self._watched)
            self._muted = True

    def close(self) -> None:
        """Wake those who poll it, before its owner closes it and the wake fd."""
        if not self._is_ours():
            # The parent has the same set. Its lock may have been held when this process was forked.
            self._closed = True
            return
        with self._lock:
            # Others may have begun to poll it since it was muted; closing it alone would not wake them.
            if self._muted and not self._closed:
                with contextlib.suppress(OSError):
                    _epoll_watch(self._fd, self._watched)
            self._closed = True

    def _is_ours(self) -> bool:
        return os.getpid() == self._pid
