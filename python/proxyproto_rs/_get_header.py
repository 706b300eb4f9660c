"""get_header finds the header of a connection in the objects that servers make of it."""

from __future__ import annotations

from asyncio.trsock import TransportSocket
from typing import Any, TypeVar, overload

from ._core import Header
from ._loops.transport import ClientSocket
from ._proxied_socket import ProxiedConnection, serving

__all__ = ["get_header"]

_Default = TypeVar("_Default")


@overload
def get_header(x: object, /) -> Header | None: ...
@overload
def get_header(x: object, default: _Default, /) -> Header | _Default | None: ...
def get_header(x: object, default: Any = None, /) -> Any:
    """Return the header of a connection, whatever object a server shows you in its place.

    Typical use::

        async def handle(reader, writer):
            header = get_header(writer)

    Args:
        x: One of these, or a request or a handler that has one of these as an attribute:

            * a `ProxiedSocket` or `ProxiedSSLSocket`;
            * a transport or an `asyncio.StreamWriter` that asyncio or uvloop made of one, with or without TLS, and the
              socket that these show;
            * a WebSocket connection of `websockets`, and any object with such a `get_extra_info` or `transport`;
            * a stream or a socket of the modules `trio`, `anyio` and `gevent` of this package;
            * the scope of an ASGI application;
            * the environ of a WSGI application in the middleware of `proxyproto_rs.wsgi`.
        default: The result if `x` is not a connection of a Listener.

    Returns:
        The header, or None if the connection has none.
    """
    # The longest way: from a handler of Tornado to its request, connection, stream and socket.
    for _ in range(5):
        if isinstance(x, (ProxiedConnection, ClientSocket)):
            return x.header
        if hasattr(x, "proxy_peername"):  # a stream or a socket of one of our modules
            return getattr(x, "header", None)
        if isinstance(x, TransportSocket):
            x = getattr(x, "_sock", None)
        elif isinstance(x, dict):
            return _of_request(x, default)
        elif (get_extra_info := getattr(x, "get_extra_info", None)) is not None:
            header = get_extra_info("proxy_header")
            if isinstance(header, Header):
                return header
            x = get_extra_info("socket")
        else:
            x = _inside(x)
    return default


def _inside(x: object) -> object:
    """Return the first of the attributes below that a connection or a request has."""
    return next((found for name in _INSIDE if (found := getattr(x, name, None)) is not None), None)


# In this order: a request of Starlette has a method `stream`.
_INSIDE = (
    "transport",  # of asyncio's protocols, and of requests of aiohttp and Sanic
    "transport_stream",  # of trio's TLS
    "socket",  # of `websockets.sync`, which has threads in place of a transport, and of Tornado's streams
    "scope",  # of requests of Starlette, Quart and Django
    "environ",  # of requests of Werkzeug and Django
    "connection",  # of Tornado's requests, and of handlers of socketserver and http.server
    "stream",  # of Tornado's connections
    "ws_connection",  # of Tornado's handlers of WebSockets, whose request has given its connection away
    "request",  # of handlers of socketserver and Tornado
)


def _of_request(request: dict[str, Any], default: Any) -> Any:
    """Return the header for an ASGI scope or a WSGI environ.

    Our middleware has put it there. Without the middleware, the context of an ASGI server's task knows the connection. If
    the scope has another client, the task has started a request for somebody else.
    """
    if "proxyproto.header" in request:
        return request["proxyproto.header"]
    connection = serving.get(None)
    if connection is None or request.get("type") not in ("http", "websocket"):
        return default
    peername = connection.proxy_peername if connection.peername is None else connection.peername
    return connection.header if _is_of(request.get("client"), peername) else default


def _is_of(client: Any, peername: Any) -> bool:
    """Whether `client` is the client of this connection: a host and a port, or None if the server does not know it."""
    if client is None:
        return True
    if isinstance(peername, tuple):
        return isinstance(client, (tuple, list)) and tuple(client[:2]) == peername[:2]
    return bool(client == peername)
