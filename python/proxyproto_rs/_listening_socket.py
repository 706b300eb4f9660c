"""The socket half of a Listener: what `socket.socket` promises, kept over the acceptor's queue.

As far as the kernel goes it is a duplicate of the listening socket, so options, name and family are its own.
Readiness and accepting are the acceptor's, on its thread: `fileno()` is its wake fd, and `accept()` takes
from its queue.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import socket
import time
import warnings
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeVar

from . import _core
from ._loops.which import runs_as_callback, runs_uvloop
from ._proxied_socket import ProxiedSocket, serving
from ._reports import OnRefused, Refusals
from ._wake_fd import PublicFd, WakeFd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._core import Acceptor, Connection

_Socket = TypeVar("_Socket")


class ListeningSocket(socket.socket):
    """A listening socket whose connections come from an acceptor."""

    # A constructor that fails leaves an object behind, which is closed nevertheless when it is collected.
    _is_open = False

    def _begin(self, acceptor: Acceptor, on_refused: OnRefused | None) -> None:
        try:
            self._refusals = Refusals(on_refused)
            super().__init__(fileno=acceptor.dup_listening())
            self._wake_fd = WakeFd(acceptor.dup_wake_fd())
            self._public_fd = PublicFd(self._wake_fd)
        except BaseException:
            acceptor.close()
            if super().fileno() >= 0:
                super().close()
            raise
        self._acceptor = acceptor
        # Kept here: O_NONBLOCK belongs to the file description, which the acceptor shares and wants
        # non-blocking.
        self._timeout = socket.getdefaulttimeout()
        self._is_open = True
        # What the acceptor has to say of its options need not wait for the first connection.
        self._tell_refusals()

    def accept(self) -> tuple[ProxiedSocket, Any]:
        """Wait for a connection; return it with the client's address.

        The connection blocks unless the Listener does not, or `socket.setdefaulttimeout` says otherwise.
        Meanwhile refusals are logged and given to ``on_refused``.

        Raises:
            BlockingIOError: There is none, and the Listener is non-blocking.
            TimeoutError: There was none within the Listener's timeout.
            OSError: The Listener is closed or drained (EBADF), perhaps by another thread in the meantime.
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        timeout = self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while (sock := self.try_accept()) is None:
            if timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError("timed out")
            self._wake_fd.wait(remaining)
        if runs_as_callback():
            # An asyncio server has called, and starts a task for the connection next, which inherits the context.
            serving.set(sock.connection)
        return sock, sock.getpeername()

    def try_accept(self) -> ProxiedSocket | None:
        """Return a connection, or None if there is none now: `accept` without waiting, whatever the timeout.

        Raises:
            OSError: The Listener is closed or drained (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        sock = self._take_one()
        if sock is not None:
            default = socket.getdefaulttimeout()
            if default is not None:
                sock.settimeout(default)
            elif self._timeout != 0:
                sock.setblocking(True)
        return sock

    def _tell_refusals(self) -> None:
        if (taken := self._acceptor.take_refusals()) is not None:
            self._refusals.tell(*taken)

    def _take_one(self) -> ProxiedSocket | None:
        self._tell_refusals()
        try:
            taken = self._acceptor.take()
        except OSError:
            if self._is_open:  # so it is drained
                self._public_fd.mute()
            raise
        return None if taken is None else ProxiedSocket(taken, self.proto)

    def take_up_to(self, most: int, make: Callable[[Connection, int], _Socket]) -> Iterator[_Socket]:
        """Tell of refusals, then give the connections that are there, non-blocking.

        They are taken at once: those that the caller does not come for are closed.
        """
        self._tell_refusals()
        proto = self.proto
        for connection in self._acceptor.take_all(most):
            yield make(connection, proto)

    def fileno(self) -> int:
        """Return an fd that is readable while there is something to take: a connection, or refusals to tell
        of.

        It is good for waiting and for nothing else. -1 once closed; not readable any more once `accept` has
        raised OSError (EBADF) because the Listener is drained.
        """
        return self._public_fd.fileno() if self._is_open else -1

    def dup_wake_fd(self) -> WakeFd:
        """Return a wake fd of its own for a server or a waiter on an event loop.

        Raises:
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        self.listen()
        return self._wake_fd.dup()

    def listen(self, _backlog: int = 0, /) -> None:
        """Do nothing: it listens already.

        Raises:
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        if not self._is_open:
            raise OSError(errno.EBADF, "the listener is closed")
        self._acceptor.stats()

    def settimeout(self, value: float | None, /) -> None:
        """Set how long `accept` waits, in seconds: None for ever, 0 not at all."""
        if value is not None:
            value = value if isinstance(value, float) else float(operator.index(value))
            if not value >= 0:  # nor is a NaN
                raise ValueError("Timeout value out of range")
        self._timeout = value

    def gettimeout(self) -> float | None:
        """Return what `settimeout` has set."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """What `settimeout` has set."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Set whether `accept` waits.

        Raises:
            RuntimeError: It is called on uvloop, whose `create_server` does so before it takes the fd from
                the kernel, and then never serves anybody. `settimeout(0)` does the same for other uses.
        """
        if not flag and runs_uvloop():
            raise RuntimeError(
                "uvloop cannot serve a Listener that is given as sock=, it would never accept anything: use "
                "'await listener.create_server(protocol_factory)' or "
                "'await listener.start_server(client_connected_cb)', or run this server on asyncio's own loop"
            )
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return whether `accept` waits."""
        return self._timeout != 0

    def get_inheritable(self) -> bool:
        """Return whether programs that are executed inherit the listening socket."""
        return os.get_inheritable(super().fileno())

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether programs that are executed inherit the listening socket."""
        os.set_inheritable(super().fileno(), inheritable)

    def close(self) -> None:
        """Close for good, and what was not accepted with it. Whoever waits for a connection learns of it."""
        if self._is_open:
            # What was refused last is still told. In a forked child that is for the parent to tell.
            with contextlib.suppress(RuntimeError):
                self._tell_refusals()
            self._is_open = False
            self._acceptor.close()
            self._public_fd.close()
            self._wake_fd.close()
        super().close()

    def __del__(self) -> None:
        if self._is_open:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            finally:
                self.close()

    def bind(self, _address: Any, /) -> NoReturn:
        """Raise TypeError: it is bound."""
        raise TypeError("a Listener is bound when it is made; make another one for another address")

    def connect(self, _address: Any, /) -> NoReturn:
        """Raise TypeError: it listens."""
        raise TypeError("a Listener listens and cannot connect; proxyproto_rs.create_connection() can")

    def connect_ex(self, address: Any, /) -> NoReturn:
        """Raise TypeError: it listens."""
        self.connect(address)

    def dup(self) -> NoReturn:
        """Raise TypeError: both would take from the same queue."""
        raise TypeError(
            "a Listener cannot be duplicated; share this one, which any number of threads may use"
        )

    def detach(self) -> NoReturn:
        """Raise TypeError: its fd would accept nothing."""
        raise TypeError("a Listener cannot be detached: its fd is good for waiting only")

    def share(self, _process_id: int, /) -> NoReturn:
        """Raise TypeError: it is this process that accepts."""
        raise TypeError(
            "a Listener cannot be shared with a process; give that one a listening socket to adopt()"
        )

    def __reduce_ex__(self, _protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError("a Listener cannot be pickled: it is this process that accepts")


# The background thread rests during a fork, so that no child inherits a lock that it holds.
os.register_at_fork(
    before=_core._before_fork,
    after_in_parent=_core._after_fork_in_parent,
    after_in_child=_core._after_fork_in_child,
)
