"""The fd that is readable while a Listener has something, kept open for as long as somebody waits on it."""

from __future__ import annotations

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
            # A caller that has more time than poll can count comes again.
            return bool(poll.poll(None if timeout is None else min(math.ceil(timeout * 1000), _LONGEST_POLL)))
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
                raise OSError(errno.EBADF, "the listener is closed")
            return WakeFd(os.dup(self._fd))

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


class PublicFd:
    """What `Listener.fileno()` gives to others: readable as the wake fd is, until that says that all is over.

    A listening socket has no such state. Who polls one, such as a server that got the Listener as ``sock``,
    would take it for a connection in each turn of its loop: a busy core, and a log full of the same error. An
    epoll fd can be polled like any other, and what it watches can be taken out of it.
    """

    __slots__ = ("_epoll", "_lock", "_muted", "_wake_fd")

    def __init__(self, wake_fd: WakeFd) -> None:
        self._wake_fd = wake_fd
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._muted = False

    def fileno(self) -> int:
        """Return the fd, which is opened when it is first asked for: threads and our own servers do without."""
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                if not self._muted:
                    self._epoll.register(self._wake_fd.fileno(), select.EPOLLIN)
            return self._epoll.fileno()

    def mute(self) -> None:
        """Make it unreadable for good."""
        with self._lock:
            if self._epoll is not None and not self._muted:
                self._epoll.unregister(self._wake_fd.fileno())
            self._muted = True

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
