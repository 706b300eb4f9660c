"""gunicorn on a Listener: hooks for its configuration file. They work with every kind of worker.

Typical use, in ``gunicorn.conf.py``::

    from proxyproto_rs.gunicorn import hooks

    post_fork, worker_exit = hooks(trusted=["10.0.0.0/8"])

or, with the proxies in gunicorn's own setting::

    from proxyproto_rs.gunicorn import post_fork, worker_exit

    proxy_allow_ips = "10.0.0.0/8"

Leave gunicorn's ``proxy_protocol`` off, because it would look for a second header. Applications get the header from the
middleware of `proxyproto_rs.wsgi` or `proxyproto_rs.asgi`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
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

    Each worker accepts on demand, so that no request waits for a busy worker while another one is idle. The kernel keeps
    a connection until its first bytes are there. A worker that ends still serves the connections whose header it reads.

    Args:
        options: Those of `Listener.adopt`. By default ``trusted`` is gunicorn's ``proxy_allow_ips``, and
            ``defer_accept`` is True.

    Raises:
        TypeError: An option is unknown, or a value has a wrong type.
        ValueError: A value is not allowed.
    """
    _check({"trusted": [], **options})  # gunicorn's setting is known in a worker

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
                # A worker of the kind "sync" has no threads or tasks that could serve the rest.
                if worker.booted and _is(worker, "gunicorn.workers.sync"):
                    listener.setblocking(False)
                    _serve_rest(listener, worker.accept)
                listener.close()

    return post_fork, worker_exit


def _check(options: dict[str, Any]) -> None:
    """Raise here what `Listener.adopt` would raise in each worker, where gunicorn would only say that none boots."""
    # The Listener checks its options before the socket, which does not listen.
    with socket.socket() as silent, contextlib.suppress(OSError):
        Listener.adopt(silent, **options)


class WorkerListener(Listener):
    """A Listener for a worker's loop. `sock` and `FAMILY` are names of gunicorn's own sockets."""

    _has_drained = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to accept."""
        return self._has_drained or self.fileno() < 0

    def accept(self) -> tuple[ProxiedSocket, Any]:
        """Do what `Listener.accept` does. A drained Listener raises BlockingIOError, as if nobody connected.

        Loops that poll it would log any other error. `is_over` tells them apart.
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
        """The socket itself."""
        return self

    @property
    def FAMILY(self) -> int:
        """The address family."""
        return self.family


def _prepare(worker: Any) -> None:
    """Do what this kind of worker needs before it starts."""
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
    """Let a worker serve the rest when it stops accepting. It still has its threads then."""
    set_accept_enabled = worker.set_accept_enabled

    def set_and_serve(enabled: bool) -> None:
        set_accept_enabled(enabled)
        if not enabled and not worker.alive:
            for listener in worker.sockets:
                _serve_rest(listener, worker.accept)

    worker.set_accept_enabled = set_and_serve


def _prepare_tornado(worker: Any) -> None:
    """Put our HTTPServer, which knows the header, in the place from which the worker takes Tornado's.

    The worker stops its server only when there is nothing more to accept.
    """
    import tornado.httpserver

    from .tornado import HTTPServer

    vars(tornado.httpserver)["HTTPServer"] = HTTPServer
    heartbeat = worker.heartbeat  # runs once per second

    def drain_and_stop() -> None:
        if not worker.alive and worker.server_alive:
            for listener in worker.sockets:
                listener.drain()
            if not all(listener.is_over for listener in worker.sockets):
                return
        heartbeat()

    worker.heartbeat = drain_and_stop


def _prepare_asgi(worker: Any) -> None:
    """Let a worker close its servers only when there is nothing more to accept."""
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
    """Put our Server, which loses no connection when it ends, in the place from which uvicorn's worker takes its own."""
    uvicorn = sys.modules.get("uvicorn")
    for base in type(worker).__mro__:
        module = sys.modules[base.__module__]
        if uvicorn is not None and vars(module).get("Server") is uvicorn.Server:
            from .uvicorn import Server

            vars(module)["Server"] = Server


def _prepare_uvloop() -> None:
    """Put our factory of loops in the place from which workers take uvloop's."""
    try:
        import uvloop
    except ImportError:
        return
    from .uvloop import new_event_loop

    uvloop.new_event_loop = new_event_loop


def _prepare_gevent(worker: Any) -> None:
    """Let a worker serve its Listeners. Its own method `patch` would turn them into sockets of gevent's."""
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
    """Drain the Listener, and serve what it has taken from the kernel. A late header still has its time.

    Args:
        listener: It stays open.
        accept: Accepts one connection and serves it.
        wait_readable: Waits until an fd is readable.
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
    """Whether the worker's class is that of the module, or a subclass."""
    return any(base.__module__ == module for base in type(worker).__mro__)


_TICK = 0.01

post_fork: Hook
worker_exit: Hook
post_fork, worker_exit = hooks()
