"""The fd that is readable while a Listener has something, kept open for as long as somebody waits on it."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import threading

_LONGEST_POLL = 2**31 - 1  # milliseconds, in a C int


class WakeFd:
    """A duplicate of the acceptor's wake fd.

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
            # Who waited, or held the lock, did so in the parent.
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


class PublicFd:
    """What `Listener.fileno()` gives to others: readable as the wake fd is, until that says that all is over.

    A listening socket has no such state. Who polls one, such as a server that got the Listener as ``sock``,
    would take it for a connection in each turn of its loop: a busy core, and a log full of the same error. An
    epoll fd can be polled like any other, and what it watches can be taken out of it.
    """

    __slots__ = ("_closed", "_epoll", "_lock", "_muted", "_wake_fd", "_watched")

    def __init__(self, wake_fd: WakeFd) -> None:
        self._wake_fd = wake_fd
        self._watched = -1
        self._lock = threading.RLock()
        self._epoll: select.epoll | None = None
        self._muted = False
        self._closed = False

    def fileno(self) -> int:
        """Return the fd, which is opened when it is first asked for: threads and our own servers do without."""
        with self._lock:
            try:
                if self._epoll is None:
                    self._epoll = select.epoll()
                    self._watched = self._wake_fd.fileno()
                    if not self._muted:
                        self._epoll.register(self._watched, select.EPOLLIN)
                return self._epoll.fileno()
            except (OSError, ValueError):
                if self._closed:
                    return -1
                raise

    def mute(self) -> None:
        """Make it unreadable until it is closed."""
        with self._lock:
            if self._epoll is not None and not self._muted:
                # Where it has been closed meanwhile, it watches nothing any more.
                with contextlib.suppress(OSError, ValueError):
                    self._epoll.unregister(self._watched)
            self._muted = True

    def close(self) -> None:
        self._closed = True
        if self._epoll is None:
            return
        # Others may have begun to poll it since it was muted; closing it alone would not wake them. A child that
        # was forked shares what it watches with its parent, and only closes.
        if self._muted and not self._wake_fd.is_inherited():
            with contextlib.suppress(OSError, ValueError):
                self._epoll.register(self._watched, select.EPOLLIN)
        self._epoll.close()
