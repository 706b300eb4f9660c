"""Which loop it is: asyncio's selector loop, whose internals we know, or uvloop; and where on it the caller runs."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Any


def runs_uvloop() -> bool:
    """Whether the caller runs on a uvloop."""
    if "uvloop" not in sys.modules:
        return False
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    return any(base.__module__.partition(".")[0] == "uvloop" for base in type(loop).__mro__)


def runs_trio() -> bool:
    """Whether the caller runs on trio."""
    sniffio = sys.modules.get("sniffio")  # trio tells it
    if sniffio is None or "trio" not in sys.modules:
        return False
    try:
        return bool(sniffio.current_async_library() == "trio")
    except sniffio.AsyncLibraryNotFoundError:
        return False


def runs_as_callback() -> bool:
    """Whether an event loop runs the caller outside of tasks, so that the context is the caller's own."""
    return asyncio._get_running_loop() is not None and asyncio.current_task() is None


def is_selector_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop has the two methods that asyncio's own servers call, as we know them."""
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return False
    methods = {name: getattr(loop, name, None) for name in _WANTED}
    return all(
        method is not None and _WANTED[name] <= inspect.signature(method).parameters.keys()
        for name, method in methods.items()
    )


def takes_connections(loop: Any) -> bool:
    """Whether the loop can make a transport of an accepted connection; some, such as rloop's, have only the method."""
    if isinstance(loop, asyncio.BaseEventLoop) or runs_uvloop():
        return True
    connect = getattr(loop, "connect_accepted_socket", None)
    if connect is None:
        return False
    coroutine = connect(asyncio.Protocol, None)
    try:
        coroutine.send(None)
    except NotImplementedError:
        return False
    except Exception:
        return True
    coroutine.close()
    return True


_WANTED = {
    "_make_socket_transport": {"waiter", "extra", "server"},
    "_make_ssl_transport": {"waiter", "server_side", "extra", "server", "ssl_handshake_timeout"},
}
