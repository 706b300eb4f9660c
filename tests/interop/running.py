"""Running the servers of docs/ beside a test: each in a thread of its own, with the loop that it needs."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal

from proxyproto_rs.uvloop import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxyproto_rs import Listener

Loop = str
"""``"asyncio"``, ``"uvloop"``, ``"proxyproto_rs.uvloop"``, ``"trio"`` or ``"threads"``."""


@contextlib.contextmanager
def running(namespace: dict[str, Any], loop: Loop, listener: Listener, tls: dict[str, Any]) -> Iterator[None]:
    """Run an example's ``main`` or ``make_server``, and stop it at the end. If it failed, its error is raised here."""
    make_server = namespace.get("make_server")
    if make_server is not None:
        with running_server(make_server(listener, **tls)):
            yield
    elif loop == "threads":
        with running_thread(namespace["main_with_tls" if tls else "main"], listener, tls):
            yield
    else:
        with running_loop(namespace["main"], loop, listener, tls):
            yield


@contextlib.contextmanager
def running_loop(
    main: Callable[..., Any], loop: Loop, listener: Listener, tls: dict[str, Any]
) -> Iterator[None]:
    backend = "trio" if loop == "trio" else "asyncio"
    with start_blocking_portal(backend, _BACKEND_OPTIONS.get(loop)) as portal:
        future = portal.start_task_soon(lambda: main(listener, **tls))
        # If the server fails, its clients must not wait for it.
        future.add_done_callback(lambda _: listener.close())
        try:
            yield
        finally:
            if not future.cancel():
                future.result()


@contextlib.contextmanager
def running_server(server: Any) -> Iterator[None]:
    """Run a server with ``serve_forever`` and ``shutdown``."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        if hasattr(server, "server_close"):
            server.server_close()


@contextlib.contextmanager
def running_thread(main: Callable[..., None], listener: Listener, tls: dict[str, Any]) -> Iterator[None]:
    """Run an accept loop that ends when its Listener is closed."""
    thread = threading.Thread(target=main, args=(listener,), kwargs=tls)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        thread.join()


_BACKEND_OPTIONS: dict[Loop, dict[str, Any]] = {
    "uvloop": {"use_uvloop": True},
    "proxyproto_rs.uvloop": {"loop_factory": new_event_loop},
}
