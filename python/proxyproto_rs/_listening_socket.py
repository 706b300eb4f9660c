"""The socket half of a Listener: what `socket.socket` promises, kept over the acceptor's queue.

The fd of this object is no socket: it tells when there is something to take. So whoever goes behind these methods,
to the fd or to `socket.socket` itself, gets an error and never a connection that the acceptor has not passed. What
is asked of the kernel (`getsockname`, `getsockopt`, ...) goes to a duplicate of the listening socket.

A Listener costs six fds: three here (the one it shows, the wake fd and that duplicate) and three in the acceptor,
whose thread has a few more for all Listeners together.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeVar

from . import _core
from ._core import Acceptor, Connection
from ._loops.which import runs_as_callback, runs_uvloop
from ._proxied_socket import ProxiedSocket, serving
from ._reports import OnRefused, Refusals, log_start
from ._wake_fd import ShownFd, WakeFd

_Instruction = tuple[int, CodeType, int]

if TYPE_CHECKING:
    StdlibSocket = socket.socket
elif "gevent.monkey" in sys.modules:
    # gevent's class accepts by itself, on the fd. Waiting is cooperative all the same: see `WakeFd`.
    StdlibSocket = sys.modules["gevent.monkey"].get_original("socket", "socket")
else:
    StdlibSocket = socket.socket

_Socket = TypeVar("_Socket")

# Answers EBADF to everything.
with StdlibSocket() as _CLOSED:
    pass


class ListeningSocket(StdlibSocket):
    """A listening socket whose connections come from an acceptor."""

    # A constructor that fails leaves an object behind, which is closed nevertheless when it is collected.
    _is_open = False
    _listening = _CLOSED
    _called_from: _Instruction | None = None

    def _begin(self, acceptor: Acceptor, on_refused: OnRefused | None) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(acceptor.close)
            self._refusals = Refusals(on_refused)
            self._listening = undo.enter_context(StdlibSocket(fileno=acceptor.dup_listening()))
            self._wake_fd = WakeFd(acceptor.dup_wake_fd())
            undo.callback(self._wake_fd.close)
            # A socket for the moment, as `socket.socket` takes no other fd.
            super().__init__(self._listening.family, self._listening.type, self._listening.proto)
            undo.callback(super().close)
            self._shown_fd = ShownFd(super().fileno(), self._wake_fd)
            undo.pop_all()
        self._acceptor = acceptor
        # Kept here: O_NONBLOCK belongs to the file description, which the acceptor shares and wants
        # non-blocking.
        self._timeout = socket.getdefaulttimeout()
        self._is_open = True
        log_start(acceptor, self.family)
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
            # An asyncio server has called. It starts a task for the connection next, which inherits the context. The
            # context outlives the connection, so it must not hold the client's place.
            serving.set(sock.connection.without_place())
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

    def hand_to(
        self,
        gateway: _core.Gateway,
        *,
        name: str,
        max_unauthenticated: int,
        channel: _core.Channel | None = None,
    ) -> None:
        """Let a gateway take the connections and the refusals from now on; `tell` takes the refusals back.

        Closing, statistics and options stay here.
        """
        gateway.serve(self._acceptor, name=name, max_unauthenticated=max_unauthenticated, channel=channel)

    def tell(self, report: _core.ListenerReport) -> None:
        """Log what a gateway has taken from this Listener, and give it to ``on_refused``."""
        self._refusals.tell(*report.refusals)

    def _take_one(self) -> ProxiedSocket | None:
        self._tell_refusals()
        try:
            taken = self._acceptor.take()
        except OSError:
            if self._is_open:  # so it is drained
                self._shown_fd.mute()
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

    def _accept(self) -> NoReturn:
        """Raise TypeError: gevent's servers call this to take a connection behind the back of `accept`."""
        raise TypeError(
            "a Listener hands out connections by accept() and try_accept() only: _accept() would take them before "
            "their PROXY header is read. With gevent, spawn a greenlet for each sock that listener.accept() returns"
        )

    def fileno(self) -> int:
        """Return an fd that is readable while there is something to take: a connection, or refusals to tell
        of.

        It is good for waiting and for nothing else. -1 once closed; not readable any more once `accept` has
        raised OSError (EBADF) because the Listener is drained.

        Raises:
            RuntimeError: uvloop asks, which was given the Listener as ``sock``: it would never accept anything.
        """
        if self._called_from is not None and self._called_from == _calling_instruction():
            raise RuntimeError(_NOT_ON_UVLOOP)
        return super().fileno() if self._is_open else -1

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
        """Set whether `accept` waits."""
        self._timeout = None if flag else 0.0
        # uvloop's create_server() asks for the fd next: see `fileno`.
        self._called_from = None if flag or not runs_uvloop() else _calling_instruction()

    def getblocking(self) -> bool:
        """Return whether `accept` waits."""
        return self._timeout != 0

    def getsockname(self) -> Any:
        """Return the listening address."""
        return self._listening.getsockname()

    def getpeername(self) -> Any:
        """Raise OSError, as a listening socket does (ENOTCONN)."""
        return self._listening.getpeername()

    def getsockopt(self, *arguments: Any) -> Any:
        """Return an option of the listening socket."""
        return self._listening.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """Set an option of the listening socket."""
        self._listening.setsockopt(*arguments)

    def shutdown(self, how: int, /) -> None:
        """Do to the listening socket what shutdown(2) does: SHUT_RD ends listening."""
        self._listening.shutdown(how)

    def get_inheritable(self) -> bool:
        """Return whether programs that are executed inherit the listening socket."""
        return self._listening.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether programs that are executed inherit the listening socket."""
        self._listening.set_inheritable(inheritable)

    def close(self) -> None:
        """Close for good, and what was not accepted with it. Whoever waits for a connection learns of it."""
        if not self._is_open:
            super().close()
            return
        # Log the last refusals. In a forked child this raises, and the parent logs them.
        with contextlib.suppress(RuntimeError):
            self._tell_refusals()
        self._is_open = False
        self._acceptor.close()
        self._shown_fd.close()
        super().close()
        # Close the wake fd last: the shown fd watches it. If it closed first, threads that poll the shown fd would not wake.
        self._wake_fd.close()
        self._listening.close()

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


def _calling_instruction() -> _Instruction:
    """Return the instruction of a program that has called the method that calls this."""
    frame = sys._getframe(2)
    return id(frame), frame.f_code, frame.f_lasti


# Two calls of methods cannot come from one instruction of a program, unless that runs C code, such as uvloop's.
_NOT_ON_UVLOOP = (
    "uvloop cannot serve a Listener that is given as sock=, it would never accept anything: run this server on "
    "proxyproto_rs.uvloop.Loop, or use 'await listener.create_server(protocol_factory)' or "
    "'await listener.start_server(client_connected_cb)', or asyncio's own loop"
)

# The background thread rests during a fork, so that no child inherits a lock that it holds.
os.register_at_fork(
    before=_core._before_fork,
    after_in_parent=_core._after_fork_in_parent,
    after_in_child=_core._after_fork_in_child,
)
