"""The server that `create_server` and `start_server` return: asyncio's Server, over one or more Listeners.

And the TLS of a server: what asyncio lets one say about it.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import ssl
import sys
from abc import abstractmethod
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .._annotations import Self
from .._core import Connection
from .._listening_socket import ListeningSocket
from .._wake_fd import WakeFd

__all__ = ["Server"]

# As many as asyncio accepts in one turn of its loop, with its backlog of 100: the loop has others to serve.
_BATCH = 100

DRAIN_TIMEOUT = 30.0  # gunicorn's graceful_timeout is as long

# An aborted connection is gone after a few turns of the loop. One that is not must not hold up the end.
_ABORT_TIMEOUT = 1.0


class Server(asyncio.AbstractServer):
    """Serves the connections of a Listener, or of several, on one event loop.

    Closing it closes the Listeners, as `asyncio` closes what its servers got as ``sock``. When all Listeners are
    closed, it closes.

    Attributes:
        listeners: The Listeners, also when they are closed.
    """

    def __init__(
        self,
        listeners: Iterable[ListeningSocket],
        loop: asyncio.AbstractEventLoop,
        make_socket: Callable[[Connection, int], Any],
    ) -> None:
        """Serve `listeners` on `loop`, which gets what `make_socket` makes as the sockets of connections."""
        self.listeners: tuple[Any, ...] = tuple(listeners)
        self._loop = loop
        self._make_socket = make_socket
        self._drain_timeout: float | None = DRAIN_TIMEOUT
        self._closed = False
        # Whether the Listeners have ended it, and not `close`.
        self._has_ended = False
        # By the Listeners that are served, while they are.
        self._wake_fds: dict[ListeningSocket, WakeFd] = {}
        self._serving_forever: asyncio.Future[None] | None = None
        self._closed_waiters: list[asyncio.Future[None]] | None = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The Listeners, as asyncio shows its sockets; empty once the server is closed."""
        return () if self._closed else tuple(map(TransportSocket, self.listeners))

    @property
    def drain_timeout(self) -> float | None:
        """Seconds that `serve_forever` waits for the clients when the Listeners have ended; None waits for ever.

        It can be changed.
        """
        return self._drain_timeout

    @drain_timeout.setter
    def drain_timeout(self, seconds: float | None) -> None:
        if not isinstance(seconds, int | float | None):
            raise TypeError(f"drain_timeout must be a number or None, not {type(seconds).__name__}")
        if seconds is not None and not seconds >= 0:  # nor is a NaN
            raise ValueError(f"drain_timeout must be at least 0, not {seconds}")
        self._drain_timeout = seconds

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop it serves on."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        return bool(self._wake_fds)

    async def start_serving(self) -> None:
        """Begin to accept connections; nothing happens if it already does.

        Raises:
            RuntimeError: The server is closed.
        """
        self._start()

    async def serve_forever(self) -> None:
        """Accept connections until the Listeners are drained or closed, then wait for the clients and return.

        It waits up to `drain_timeout` seconds until all connections are closed, on every Python. Then it aborts those
        that are left. If it is cancelled while it waits, it aborts them at once.

        Raises:
            RuntimeError: `close` has been called before, or this is being awaited already.
            asyncio.CancelledError: It was cancelled, or `close` was called. The server is closed then.
        """
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if not self._has_ended:
            self._start()
        self._serving_forever = self._loop.create_future()
        try:
            if not self._has_ended:
                await self._serving_forever
            await self._wait_for_clients()
        except asyncio.CancelledError:
            try:
                if self._has_ended:
                    self.abort_clients()
                self.close()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def drain(self) -> None:
        """Call `Listener.drain` of each Listener; the server closes when they have nothing left to accept."""
        for listener in self.listeners:
            listener.drain()

    def close(self) -> None:
        """Stop accepting and close the Listeners. Connections that were accepted go on."""
        if self._closed:
            return
        self._closed = True
        for listener in self.listeners:
            self._stop(listener)
            listener.close()
        if self._serving_forever is not None:
            self._serving_forever.cancel()
        self._wake_up_if_done()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and, from Python 3.12 on, its connections are too."""
        if self._closed_waiters is None:
            return
        # asyncio had it so before (gh-79033), and who wrote for that would wait for his clients now.
        if sys.version_info < (3, 12) and self._closed:
            return
        waiter = self._loop.create_future()
        self._closed_waiters.append(waiter)
        await waiter

    def close_clients(self) -> None:
        """Close all connections, once what is buffered has been sent. asyncio has this from Python 3.13 on."""
        for client in self._clients():
            client.close()

    def abort_clients(self) -> None:
        """Close all connections at once. asyncio has this from Python 3.13 on."""
        for client in self._clients():
            client.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    @abstractmethod
    def _serve(self, sock: Any) -> None:
        """Give the connection a protocol and a transport; report what goes wrong. It runs in a context of its own."""

    @abstractmethod
    def _has_clients(self) -> bool:
        """Whether there are open connections."""

    @abstractmethod
    def _clients(self) -> list[Any]:
        """Return the transports of open connections, or what else ends them: all have `close` and `abort`."""

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        if self._wake_fds:
            return
        try:
            for listener in self.listeners:
                # An fd of its own: others on this loop may wait for the same Listener, and anybody may close that.
                wake_fd = self._wake_fds[listener] = listener.dup_wake_fd()
                self._loop.add_reader(wake_fd.fileno(), self._accept, listener)
        except BaseException:
            for listener in self.listeners:
                self._stop(listener)
            raise

    def _stop(self, listener: ListeningSocket) -> None:
        """Serve this one no more."""
        wake_fd = self._wake_fds.pop(listener, None)
        if wake_fd is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(wake_fd.fileno())
            wake_fd.close()

    def _accept(self, listener: ListeningSocket) -> None:
        """Runs once in each turn of the loop in which the Listener is readable."""
        try:
            for sock in listener.take_up_to(_BATCH, self._make_socket):
                # What one connection leaves in its context is not for the next one.
                contextvars.copy_context().run(self._serve, sock)
                if self._closed:
                    # A protocol factory has closed it; with the Listener goes what else was ready.
                    break
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # Closed by somebody, or drained and empty.
            self._stop(listener)
            if self._wake_fds:
                listener.close()
            else:
                self._has_ended = True
                if self._serving_forever is not None and not self._serving_forever.done():
                    self._serving_forever.set_result(None)
                self.close()

    async def _wait_for_clients(self) -> None:
        if self._closed_waiters is None:
            return
        gone = self._loop.create_future()
        self._closed_waiters.append(gone)
        await asyncio.wait([gone], timeout=self.drain_timeout)
        if not gone.done():
            self.abort_clients()
            await asyncio.wait([gone], timeout=_ABORT_TIMEOUT)
            self._wake_up()

    def _wake_up_if_done(self) -> None:
        if not self._closed or self._has_clients():
            return
        self._wake_up()

    def _wake_up(self) -> None:
        waiters, self._closed_waiters = self._closed_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _report(self, message: str, error: BaseException, **context: object) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error, **context})


@dataclass(frozen=True)
class Tls:
    """A context, and the two timeouts in seconds; None where the loop's default holds."""

    context: ssl.SSLContext
    handshake_timeout: float | None
    shutdown_timeout: float | None

    @classmethod
    def of(
        cls,
        context: ssl.SSLContext | None,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
    ) -> Tls | None:
        """Check the three as asyncio does; None is plain text."""
        if context is None:
            if handshake_timeout is not None:
                raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
            if shutdown_timeout is not None:
                raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
            return None
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"ssl argument must be an SSLContext or None, not {type(context).__name__}")
        for name, timeout in (("handshake", handshake_timeout), ("shutdown", shutdown_timeout)):
            if timeout is not None and timeout <= 0:
                raise ValueError(f"ssl_{name}_timeout should be a positive number, got {timeout}")
        return cls(context, handshake_timeout, shutdown_timeout)

    def timeouts(self) -> dict[str, Any]:
        """Return what was given, as keywords: Python 3.10 does not know the second."""
        given = {
            "ssl_handshake_timeout": self.handshake_timeout,
            "ssl_shutdown_timeout": self.shutdown_timeout,
        }
        return {name: timeout for name, timeout in given.items() if timeout is not None}
