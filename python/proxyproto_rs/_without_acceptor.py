"""Stand-ins for the names that need the acceptor, where there is none: it needs Linux.

Modules that import these names and annotate with them load everywhere. Whoever calls one gets a NotImplementedError
that says what to do.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

__all__ = [
    "AddressSet",
    "ClientLimits",
    "Listener",
    "ListenerOptions",
    "ListenerStats",
    "OnRefused",
    "ProxiedConnection",
    "ProxiedSSLSocket",
    "ProxiedSocket",
    "Refusal",
    "Server",
    "create_server",
    "get_header",
    "open_streams",
    "open_transport",
    "start_server",
]


class _NeedsLinux(type):
    """The type of a class that cannot be called, nor any name of it that it would have on Linux."""

    def __call__(cls, *_: object, **__: object) -> NoReturn:
        _refuse(cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _NeedsLinux(f"{cls.__name__}.{name}", (), {})


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"{name} works on Linux only, and this is {sys.platform}: the acceptor needs epoll, eventfd and SO_RCVLOWAT. "
        "Run the server in a Linux container. parse, Decoder, Header, create_connection and open_connection work here."
    )


AddressSet = _NeedsLinux("AddressSet", (), {})
ClientLimits = _NeedsLinux("ClientLimits", (), {})
Listener = _NeedsLinux("Listener", (), {})
ListenerOptions = _NeedsLinux("ListenerOptions", (), {})
ListenerStats = _NeedsLinux("ListenerStats", (), {})
OnRefused = _NeedsLinux("OnRefused", (), {})
ProxiedConnection = _NeedsLinux("ProxiedConnection", (), {})
ProxiedSocket = _NeedsLinux("ProxiedSocket", (ProxiedConnection,), {})
ProxiedSSLSocket = _NeedsLinux("ProxiedSSLSocket", (ProxiedConnection,), {})
Refusal = _NeedsLinux("Refusal", (), {})
Server = _NeedsLinux("Server", (), {})
create_server = _NeedsLinux("create_server", (), {})
get_header = _NeedsLinux("get_header", (), {})
open_streams = _NeedsLinux("open_streams", (), {})
open_transport = _NeedsLinux("open_transport", (), {})
start_server = _NeedsLinux("start_server", (), {})
