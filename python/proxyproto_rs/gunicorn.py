"""gunicorn on a Listener: hooks for its configuration file that do for each of its workers.

Typical use, in ``gunicorn.conf.py``::

    from proxyproto_rs.gunicorn import hooks

    post_fork, worker_exit = hooks(trusted=["10.0.0.0/8"])

or, with the proxies that gunicorn's own setting names::

    from proxyproto_rs.gunicorn import post_fork, worker_exit

    proxy_allow_ips = "10.0.0.0/8"

Leave gunicorn's ``proxy_protocol`` off: it would look for a second header. Applications get the header from the
middleware of `proxyproto_rs.wsgi` or `proxyproto_rs.asgi`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import Listener, ProxiedSocket

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["hooks", "post_fork", "worker_exit"]

Hook = Callable[[Any, Any], None]


def hooks(**options: Any) -> tuple[Hook, Hook]:
    """Make ``post_fork`` and ``worker_exit``.

    Each worker accepts on demand, so that no request waits behind a busy worker while another one is idle. The kernel
    keeps connections until their header is there. A worker that ends serves those whose header it is still reading.

    Args:
        options: Those of `Listener.adopt`. ``trusted`` is gunicorn's ``proxy_allow_ips`` unless given, and
            ``defer_accept`` is True.
    """

    def post_fork(_server: Any, worker: Any) -> None:
        given = {"defer_accept": True, **options}
        if "trusted" not in given:
            allowed = worker.cfg.proxy_allow_ips
            given["trusted"] = None if "*" in allowed else allowed
        worker.sockets = [WorkerListener.adopt(bound.sock, **given) for bound in worker.sockets]
        _prepare(worker)

    def worker_exit(_server: Any, worker: Any) -> None:
        for listener in worker.sockets:
            if isinstance(listener, WorkerListener) and listener.fileno() >= 0:
                # A worker of the kind "sync" has nothing left that could serve, but itself.
                if worker.booted and _is(worker, "gunicorn.workers.sync"):
                    listener.setblocking(False)
                    _serve_rest(listener, worker.accept)
                listener.close()

    return post_fork, worker_exit


class WorkerListener(Listener):
    """A Listener for a worker's loop, with the two names that gunicorn's own sockets have beside those of a socket."""

    _has_drained = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to accept."""
        return self._has_drained or self.fileno() < 0

    def accept(self) -> tuple[ProxiedSocket, Any]:
        """Do what `Listener.accept` does, but a drained Listener is as one to which nobody connects.

        Loops that poll it log every other error. `is_over` tells.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno != errno.EBADF or self.fileno() < 0:
                raise
            self._has_drained = True
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    @property
    def sock(self) -> Self:
        """The socket: this."""
        return self

    @property
    def FAMILY(self) -> int:
        """The address family."""
        return self.family


def _prepare(worker: Any) -> None:
    """Do what the worker's kind needs, before it starts."""
    if _is(worker, "gunicorn.workers.ggevent"):
        _prepare_gevent(worker)
    elif _is(worker, "gunicorn.workers.gthread"):
        _prepare_threads(worker)
    elif _is(worker, "gunicorn.workers.gtornado"):
        _prepare_tornado(worker)
    elif _is(worker, "gunicorn.workers.gasgi"):
        _prepare_uvloop()
        _prepare_asgi(worker)
    elif not _is(worker, "gunicorn.workers.sync"):
        _prepare_uvloop()
        _prepare_uvicorn(worker)


def _prepare_threads(worker: Any) -> None:
    """Let a worker serve the rest when it stops accepting, as long as it has its threads."""
    set_accept_enabled = worker.set_accept_enabled

    def set_and_serve(enabled: bool) -> None:
        set_accept_enabled(enabled)
        if not enabled and not worker.alive:
            for listener in worker.sockets:
                _serve_rest(listener, worker.accept)

    worker.set_accept_enabled = set_and_serve


def _prepare_tornado(worker: Any) -> None:
    """Let a worker, which makes its server of Tornado's by name, make one that knows the header.

    It stops that server when there is nothing more to accept.
    """
    import tornado.httpserver

    from .tornado import HTTPServer

    vars(tornado.httpserver)["HTTPServer"] = HTTPServer
    heartbeat = worker.heartbeat  # runs once in a second

    def drain_and_stop() -> None:
        if not worker.alive and worker.server_alive:
            for listener in worker.sockets:
                listener.drain()
            if not all(listener.is_over for listener in worker.sockets):
                return
        heartbeat()

    worker.heartbeat = drain_and_stop


def _prepare_asgi(worker: Any) -> None:
    """Let a worker close its servers when there is nothing more to accept."""
    shutdown = worker._shutdown

    async def drain_and_shut_down() -> None:
        for listener in worker.sockets:
            listener.drain()
        while not worker._quick_shutdown and not all(  # noqa: ASYNC110 - gunicorn's sockets and flags set no event
            listener.is_over for listener in worker.sockets
        ):
            await asyncio.sleep(_TICK)
        await shutdown()

    worker._shutdown = drain_and_shut_down


def _prepare_uvicorn(worker: Any) -> None:
    """Let uvicorn's worker, which makes a Server by name, make one that loses no connection when it ends."""
    uvicorn = sys.modules.get("uvicorn")
    for base in type(worker).__mro__:
        module = sys.modules[base.__module__]
        if uvicorn is not None and vars(module).get("Server") is uvicorn.Server:
            from .uvicorn import Server

            vars(module)["Server"] = Server


def _prepare_uvloop() -> None:
    """Let every loop of this process that is uvloop's serve a Listener; workers make theirs by name."""
    try:
        import uvloop
    except ImportError:
        return
    from .uvloop import new_event_loop

    uvloop.new_event_loop = new_event_loop


def _prepare_gevent(worker: Any) -> None:
    """Let a worker keep its Listeners, of which its own `patch` makes sockets of gevent's, and serve them."""
    import gevent.monkey

    from .gevent import AcceptsFromListener

    class Server(AcceptsFromListener):
        def close(self) -> None:
            listener: Any = vars(self).get("socket")
            if listener is not None and not self._is_serving_rest:
                self._is_serving_rest = True
                self.stop_accepting()
                _serve_rest(listener, self._accept_one, gevent.socket.wait_read)
            super().close()

        _is_serving_rest = False

        def _accept_one(self, _listener: Listener) -> None:
            if accepted := self.do_read():
                self.do_handle(*accepted)

    module = sys.modules["gunicorn.workers.ggevent"]
    vars(module)["StreamServer"] = type("StreamServer", (Server, module.StreamServer), {})
    if worker.server_class is not None:
        worker.server_class = type("WSGIServer", (Server, worker.server_class), {})
    worker.patch = gevent.monkey.patch_all


def _serve_rest(
    listener: WorkerListener,
    accept: Callable[[WorkerListener], object],
    wait_readable: Callable[[int], object] | None = None,
) -> None:
    """Accept what has been taken from the kernel already; a late header has its time.

    Args:
        listener: It is not closed, but takes nothing more.
        accept: Accepts one connection and serves it.
        wait_readable: Waits until the fd is readable.
    """
    listener.drain()
    while not listener.is_over:
        (wait_readable or _wait_readable)(listener.fileno())
        with contextlib.suppress(BlockingIOError):
            accept(listener)


def _wait_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def _is(worker: Any, module: str) -> bool:
    """Whether the worker's class is that of the module, or is made of it."""
    return any(base.__module__ == module for base in type(worker).__mro__)


_TICK = 0.01

post_fork, worker_exit = hooks()
