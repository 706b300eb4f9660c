"""uvicorn on a Listener. `run` does what `uvicorn.run` does, with workers and reload too.

Typical use::

    proxyproto_rs.uvicorn.run("app:app", host="0.0.0.0", workers=4, trusted=["10.0.0.0/8"])

The command line ``proxyproto-rs uvicorn --host 0.0.0.0 --workers 4 --trusted 10.0.0.0/8 app:app`` does the same. The
middleware of `proxyproto_rs.asgi` stands around the application. If uvicorn would run on uvloop, it runs on the loop of
`proxyproto_rs.uvloop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import sys
from typing import Any

from . import Listener
from .asgi import ProxyProtocolMiddleware

try:
    import uvicorn
    from uvicorn.supervisors import ChangeReload, Multiprocess
except ImportError as _missing:
    raise ImportError(
        "proxyproto_rs.uvicorn needs uvicorn: pip install uvicorn", name="uvicorn"
    ) from _missing
import socket
from collections.abc import Callable

__all__ = ["Config", "Server", "run"]


def run(app: Any, *, app_dir: str | None = None, **options: Any) -> None:
    """Run an application until a signal stops it, as `uvicorn.run` does.

    Args:
        app: The application, or its place ``"module:name"``. Workers and reload need the place.
        app_dir: The directory of the module.
        options: The keywords of `uvicorn.Config`, and those of `Listener.adopt`. ``defer_accept`` is True by default.
            With workers or reload, `pickle` must be able to copy what a Listener gets.

    Raises:
        TypeError: An option is unknown, or a value for the Listener has a wrong type.
        ValueError: A value for the Listener is not allowed.
        SystemExit: The application could not be started (status 3).
    """
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    known = inspect.signature(uvicorn.Config).parameters
    config = Config(app, **{name: value for name, value in options.items() if name in known})
    listener = {name: value for name, value in options.items() if name not in known}
    check(listener)
    if (config.reload or config.workers > 1) and not isinstance(app, str):
        logging.getLogger("uvicorn.error").warning(
            "You must pass the application as an import string to enable 'reload' or 'workers'."
        )
        sys.exit(_STARTUP_FAILURE)
    server = Server(config)
    try:
        bound = config.bind_socket()
        bound.listen(config.backlog)
        to_be: Any = ListenerToBe(bound, listener)
        if config.should_reload:
            ChangeReload(config, target=server.run, sockets=[to_be]).run()
        elif config.workers > 1:
            Multiprocess(config, sockets=[to_be]).run()
        else:
            # Nobody shares the socket, unless it was passed to this process.
            ahead = None if config.fd is not None else config.backlog
            server.run(sockets=[_adopt(bound, {"ahead": ahead, "backlog": config.backlog, **listener})])
    except KeyboardInterrupt:
        pass
    finally:
        if config.uds and os.path.exists(config.uds):
            os.remove(config.uds)
    if not server.started and not config.should_reload and config.workers == 1:
        sys.exit(_STARTUP_FAILURE)


def check(options: dict[str, Any]) -> None:
    """Raise what a Listener would raise for these options. Workers would raise it too, each time they are started."""
    # The Listener checks its options before the socket, which does not listen.
    with socket.socket() as silent, contextlib.suppress(OSError):
        Listener.adopt(silent, **options)


class Config(uvicorn.Config):
    """A `uvicorn.Config` for a Listener: with the middleware around the application, and a loop that serves a Listener."""

    def load(self) -> None:
        """Load the application, and put the middleware around it and around uvicorn's own middleware."""
        super().load()
        self.loaded_app: Any = ProxyProtocolMiddleware(self.loaded_app)

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Return the loop that uvicorn chooses. If that is uvloop, return ours."""
        factory = super().get_loop_factory()
        if getattr(factory, "__module__", None) == "uvloop":
            from .uvloop import new_event_loop

            return new_event_loop
        return factory

    def configure_logging(self) -> None:
        """Configure logging. If our loggers have no handler, give them uvicorn's."""
        super().configure_logging()
        ours = logging.getLogger("proxyproto_rs")
        if not ours.hasHandlers():
            ours.handlers = logging.getLogger("uvicorn").handlers
            ours.setLevel(logging.INFO)


class Server(uvicorn.Server):
    """A `uvicorn.Server` that loses no connection when it ends.

    When uvicorn ends, it closes connections whose request it has not read. This server stops accepting first. Then it
    gives the connections that it has accepted some time for their request.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start. Each Listener makes its own server on every loop, because only that server knows when it has drained."""
        loop: Any = asyncio.get_running_loop()
        create_server = loop.create_server

        async def serve(*arguments: Any, sock: Any = None, **keywords: Any) -> asyncio.AbstractServer:
            if isinstance(sock, Listener):
                return await sock.create_server(*arguments, ssl=keywords.get("ssl"))
            return await create_server(*arguments, sock=sock, **keywords)  # type: ignore[no-any-return]

        loop.create_server = serve
        try:
            await super().startup(sockets)
        finally:
            del loop.create_server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End when the accepted connections have been served."""
        if sockets:
            await self._finish_accepting(sockets)
        await super().shutdown(sockets)

    async def _finish_accepting(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        servers: list[Any] = self.servers
        ours: list[Any] = []
        for server, listener in zip(servers, sockets, strict=False):
            if isinstance(listener, Listener):
                listener.drain()
                ours.append(server)
        deadline = loop.time() + _GRACE

        def waits() -> bool:
            # The Listener limits the time for headers.
            return any(server.is_serving() for server in ours) or (
                loop.time() < deadline and any(map(_waits_for_a_request, self.server_state.connections))
            )

        while waits() and not self.force_exit:  # noqa: ASYNC110 - uvicorn's connections set no event
            await asyncio.sleep(_TICK)


class ListenerToBe:
    """A listening socket that becomes a Listener in a worker process: unpickling it adopts the socket."""

    def __init__(self, bound: socket.socket, options: dict[str, Any]) -> None:
        self._bound = bound
        self._options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt_in_worker, (self._bound, self._options)

    def close(self) -> None:
        """Close the socket. The supervisor calls this when it has ended."""
        self._bound.close()


def _adopt_in_worker(bound: socket.socket, options: dict[str, Any]) -> Listener:
    # The worker process makes a Server by this name.
    vars(importlib.import_module("uvicorn.supervisors.multiprocess"))["Server"] = Server
    return _adopt(bound, options)


def _adopt(bound: socket.socket, options: dict[str, Any]) -> Listener:
    # A client of HTTP speaks first, and so does its proxy. The kernel may keep the connection until then.
    return Listener.adopt(bound, **{"defer_accept": True, **options})


def _waits_for_a_request(connection: Any) -> bool:
    """Whether an HTTP connection has sent nothing. A WebSocket has no `cycle`."""
    return getattr(connection, "cycle", connection) is None


# Seconds for the request of a connection that was accepted just before the end. The request is there already, or on
# its way: a proxy connects when it has one.
_GRACE = 1.0
_TICK = 0.01
_STARTUP_FAILURE = 3  # uvicorn's own status
