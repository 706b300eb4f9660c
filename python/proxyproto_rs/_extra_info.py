"""What a transport of a Listener answers to `get_extra_info` beyond what asyncio puts there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._proxied_socket import ProxiedSocket
    from ._socket_stand_in import SocketStandIn

# A `SocketStandIn` has no third one: its loop knows that.
PROXY_FACTS: dict[str, Callable[[Any], Any]] = {
    "proxy_header": lambda sock: sock._connection.header,
    "proxy_peername": lambda sock: sock._connection.proxy_peername,
    "proxy_sockname": lambda sock: sock.proxy_sockname,
}


def proxy_fact(sock: ProxiedSocket | SocketStandIn, name: str, default: Any) -> Any:
    """Return one of the `PROXY_FACTS`, or the default where there is no such thing."""
    try:
        fact = PROXY_FACTS[name](sock)
    except OSError:  # our own address, asked for the first time when the socket was closed
        return default
    return default if fact is None else fact


class ExtraInfo(dict[str, Any]):
    """The `extra` of an asyncio transport, of which it asks nothing but `get`.

    The facts are made when they are asked for: most connections live and end without it.
    """

    __slots__ = ("sock",)

    sock: ProxiedSocket

    def get(self, name: str, default: Any = None) -> Any:
        if name in PROXY_FACTS:
            return proxy_fact(self.sock, name, default)
        return super().get(name, default)
