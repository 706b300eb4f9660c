"""What a transport of a Listener answers to `get_extra_info` beyond what asyncio puts there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._core import Connection
    from .._proxied_socket import ProxiedSocket

PROXY_FACTS = ("proxy_header", "proxy_peername", "proxy_sockname")


def proxy_fact(connection: Connection, name: str, default: Any) -> Any:
    """Return one of the first two `PROXY_FACTS`, or the default where there is no such thing."""
    fact = connection.header if name == "proxy_header" else connection.proxy_peername
    return default if fact is None else fact


class ExtraInfo(dict[str, Any]):
    """The `extra` of an asyncio transport, of which it asks nothing but `get`.

    The facts are made when they are asked for: most connections live and end without it.
    """

    __slots__ = ("sock",)

    sock: ProxiedSocket

    def get(self, name: str, default: Any = None) -> Any:
        if name not in PROXY_FACTS:
            return super().get(name, default)
        if name == "proxy_sockname":
            return proxy_sockname(self.sock, default)
        return proxy_fact(self.sock.connection, name, default)


def proxy_sockname(sock: ProxiedSocket, default: Any) -> Any:
    """Return the TCP connection's own end, or the default where that is not known any more."""
    try:
        return sock.proxy_sockname
    except OSError:  # asked for the first time when the socket was closed
        return default
