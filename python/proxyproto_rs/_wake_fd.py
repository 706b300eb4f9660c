"""The two fds of a Listener that are readable while it has something to take: one to wait on, and one for `fileno`."""

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
    """A duplicate of the acceptor's wake fd. It stays open as long as a thread waits on it.

    The fd must not be closed while a thread is in `poll`. Its number may soon belong to another file, and the thread would
    sleep on that. So the last waiting thread closes it. When the acceptor closes, its duplicates stay readable, and all
    waiting threads wake up.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_pid", "_waiting")

    def __init__(self, fd: int) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._closed = False
        # A signal handler may run inside any method of this class, and may close the Listener.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._waiting = 0

    def fileno(self) -> int:
        return -1 if self._closed else self._fd

    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that made it."""
        return os.getpid() != self._pid

    def wait(self, timeout: float | None) -> bool:
        """Block until the fd is readable, at most `timeout` seconds. Return whether it is. A closed fd is readable."""
        with self._lock:
            self._waiting += 1
        try:
            if self._closed:
                return True
            # This looks `poll` up each time: gevent may have put its own there, which lets other greenlets run.
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            # If the timeout is longer than poll can count, the caller waits again.
            return bool(poll.poll(None if timeout is None else math.ceil(min(timeout * 1000, _LONGEST_POLL))))
        finally:
            with self._lock:
                self._waiting -= 1
                self._let_go()

    def dup(self) -> WakeFd:
        """Return a duplicate, which an event loop can register, and close when it likes.

        Raises:
            OSError: The Listener is closed (EBADF), or there are too many open files.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the listener is closed")
            return WakeFd(os.dup(self._fd))

    def close(self) -> None:
        if self.is_inherited():
            # The threads that waited, or held the lock, are in the parent.
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
        # Nobody waits any more, but an exception may have come between the count and the `try` of a wait.
        self._waiting = 0
        self.close()


class ShownFd:
    """The fd that `Listener.fileno` returns. It is readable when the wake fd is, until the Listener is drained.

    A server that got the Listener as ``sock`` polls this fd. It does not know that a listening socket can be drained. If
    the fd stayed readable then, the server would try to accept in each turn of its loop: a busy core, and a log full of
    the same error. So the fd is an epoll set: it can be polled like any other fd, and it can stop watching the wake fd.

    It is not a socket, so accept(2), listen(2) and connect(2) on it fail.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_muted", "_pid", "_watched")

    def __init__(self, fd: int, wake_fd: WakeFd) -> None:
        """Replace `fd` by an epoll set that watches `wake_fd`. The owner of `fd` closes it."""
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
                # Somebody may have closed the fd behind the Listener's back.
                with contextlib.suppress(OSError):
                    _epoll_forget(self._fd, self._watched)
            self._muted = True

    def close(self) -> None:
        """Wake all who poll the fd, before its owner closes it and the wake fd."""
        if not self._is_ours():
            # The parent uses the same set. A thread may have held the lock when this process was forked.
            self._closed = True
            return
        with self._lock:
            # Others may have begun to poll the fd since it was muted, and closing it would not wake them.
            if self._muted and not self._closed:
                with contextlib.suppress(OSError):
                    _epoll_watch(self._fd, self._watched)
            self._closed = True

    def _is_ours(self) -> bool:
        return os.getpid() == self._pid
