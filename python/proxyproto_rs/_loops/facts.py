"""What a transport of a Listener answers to `get_extra_info` beyond what asyncio puts there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._proxied_socket import ProxiedSocket


class ExtraInfo(dict[str, Any]):
    """The `extra` of an asyncio transport, which calls only `get`.

    It makes the facts when somebody asks for them. Most connections end without that.
    """

    __slots__ = ("sock",)

    sock: ProxiedSocket

    def get(self, name: str, default: Any = None) -> Any:
        fact: Any
        if name == "proxy_header":
            fact = self.sock.header
        elif name == "proxy_peername":
            fact = self.sock.proxy_peername
        elif name == "proxy_sockname":
            fact = proxy_sockname(self.sock)
        else:
            return super().get(name, default)
        return default if fact is None else fact


def proxy_sockname(sock: ProxiedSocket) -> Any:
    """Return the TCP connection's own end; None if nobody asked for it before the socket was closed."""
    try:
        return sock.proxy_sockname
    except OSError:
        return None
