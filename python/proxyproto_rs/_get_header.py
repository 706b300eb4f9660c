"""get_header: the header of a connection, whatever a server has made of it."""

from __future__ import annotations

from asyncio.trsock import TransportSocket

from ._core import Header
from ._loops.transport import ClientSocket
from ._proxied_socket import ProxiedSocket

__all__ = ["get_header"]


def get_header(x: object, /) -> Header | None:
    """Return the header of a connection, whatever it has been wrapped in.

    Args:
        x: A `ProxiedSocket`; a socket, a transport or a `asyncio.StreamWriter` that asyncio made of one, with
            or without TLS; a WebSocket connection of `websockets`; anything with `get_extra_info` or a
            `transport` like these.

    Returns:
        The header, or None where there is none.
    """
    # From a WebSocket connection to its transport, to the transport's socket, to ours: there is no longer
    # way.
    for _ in range(4):
        if isinstance(x, (ProxiedSocket, ClientSocket)):
            return x.header
        if isinstance(x, TransportSocket):
            x = getattr(x, "_sock", None)
        elif (get_extra_info := getattr(x, "get_extra_info", None)) is not None:
            header = get_extra_info("proxy_header")
            if isinstance(header, Header):
                return header
            x = get_extra_info("socket")
        else:
            # `socket` is what the threads of `websockets.sync` have in place of a transport.
            x = getattr(x, "transport", None) or getattr(x, "socket", None)
    return None
