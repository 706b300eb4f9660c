"""A uvloop for servers that take a listening socket as ``sock``. It serves a Listener like any other socket.

uvloop's own `create_server(sock=...)` would accept from the kernel, before the header is read, so a Listener refuses it.
The loop of this module passes such a call to `Listener.create_server`. Everything else is uvloop's.

Typical use::

    uvicorn.Config(app, loop="proxyproto_rs.uvloop:new_event_loop")    # and serve(sockets=[listener])

    proxyproto_rs.uvloop.run(main())                                   # in place of uvloop.run()
"""

from __future__ import annotations

from typing import Any, TypeVar

from . import Listener, ProxiedSocket, open_transport

try:
    import uvloop
except ImportError as _missing:
    raise ImportError("proxyproto_rs.uvloop needs uvloop: pip install uvloop", name="uvloop") from _missing
import asyncio
import ssl
from collections.abc import Callable, Coroutine

__all__ = ["Loop", "new_event_loop", "run"]

_Result = TypeVar("_Result")


class Loop(uvloop.Loop):
    """A `uvloop.Loop` that serves a `Listener` given as ``sock`` to `create_server` and `asyncio.start_server`."""

    async def create_server(  # type: ignore[override] # the stub has overloads, one for each way to be called
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *address: Any, **keywords: Any
    ) -> asyncio.AbstractServer:
        """Do what `uvloop.Loop.create_server` does. With a Listener as ``sock``, do what `Listener.create_server` does.

        With a Listener only ``start_serving`` and the keywords about TLS matter. The others describe a socket that the
        loop would bind; asyncio ignores them with ``sock`` too.

        Raises:
            ValueError: A host or a port is given with ``sock``.
            OSError: The Listener is closed (EBADF).
        """
        listener = keywords.get("sock")
        if not isinstance(listener, Listener):
            return await super().create_server(protocol_factory, *address, **keywords)
        if any(given is not None for given in (*address, keywords.get("host"), keywords.get("port"))):
            raise ValueError("host/port and sock can not be specified at the same time")
        kept = {name: value for name, value in keywords.items() if name in _KEPT}
        return await listener.create_server(protocol_factory, **kept)

    async def connect_accepted_socket(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], sock: Any, **keywords: Any
    ) -> Any:
        """Do what `uvloop.Loop.connect_accepted_socket` does. With a ProxiedSocket, do what `open_transport` does."""
        if isinstance(sock, ProxiedSocket):
            return await open_transport(sock, protocol_factory, **keywords)
        return await super().connect_accepted_socket(protocol_factory, sock, **keywords)

    async def start_tls(
        self, transport: Any, protocol: asyncio.BaseProtocol, sslcontext: ssl.SSLContext, **keywords: Any
    ) -> Any:
        """Do what `uvloop.Loop.start_tls` does, and keep the client's addresses of a transport that has them."""
        if hasattr(transport, "start_tls"):  # uvloop's own have no such method
            return await transport.start_tls(protocol, sslcontext, **keywords)
        return await super().start_tls(transport, protocol, sslcontext, **keywords)


def new_event_loop() -> Loop:
    """Return a new `Loop`. ``uvicorn --loop`` and `asyncio.Runner` take this function as a factory."""
    return Loop()


def run(
    main: Coroutine[Any, Any, _Result],
    *,
    loop_factory: Callable[[], uvloop.Loop] | None = new_event_loop,
    debug: bool | None = None,
) -> _Result:
    """Run a coroutine on a new `Loop` and return its result, as `uvloop.run` does.

    Args:
        main: The coroutine.
        loop_factory: A function that makes the loop: a `uvloop.Loop` or an instance of a subclass.
        debug: Whether asyncio's debug mode is on. None does not change it.
    """
    return uvloop.run(main, loop_factory=loop_factory, debug=debug)


_KEPT = {"ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout", "start_serving"}
