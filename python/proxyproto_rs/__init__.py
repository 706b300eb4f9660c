"""The PROXY protocol for Python servers: a listening socket whose accept() has already read the header.

Typical use::

    async def handle(reader, writer):
        host, port = writer.get_extra_info("peername")[:2]  # the client, not the load balancer
        ...

    async def main():
        listener = Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"])
        async with listener.start_server(handle) as server:
            await server.serve_forever()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _annotations, _core
from ._connect import create_connection, open_connection, open_unix_connection
from ._core import Decoder, Header, SslInfo, __version__, parse, parse_datagram
from ._enums import Command, Family, Transport
from .exceptions import IncompleteHeader, InvalidHeader, ProxyProtocolError

if TYPE_CHECKING or hasattr(_core, "Acceptor"):
    from ._core import AddressSet, ClientLimits
    from ._get_header import get_header
    from ._listener import Listener
    from ._loops.serve import open_streams, open_transport
    from ._loops.server import Server
    from ._options import ListenerOptions
    from ._proxied_socket import ProxiedConnection, ProxiedSocket, ProxiedSSLSocket
    from ._reports import ListenerStats, OnRefused, Refusal
    from ._several_hosts import create_server, start_server
else:
    from ._without_acceptor import (
        AddressSet,
        ClientLimits,
        Listener,
        ListenerOptions,
        ListenerStats,
        OnRefused,
        ProxiedConnection,
        ProxiedSocket,
        ProxiedSSLSocket,
        Refusal,
        Server,
        create_server,
        get_header,
        open_streams,
        open_transport,
        start_server,
    )

__all__ = [
    "AddressSet",
    "ClientLimits",
    "Command",
    "Decoder",
    "Family",
    "Header",
    "IncompleteHeader",
    "InvalidHeader",
    "Listener",
    "ListenerOptions",
    "ListenerStats",
    "OnRefused",
    "ProxiedConnection",
    "ProxiedSSLSocket",
    "ProxiedSocket",
    "ProxyProtocolError",
    "Refusal",
    "Server",
    "SslInfo",
    "Transport",
    "__version__",
    "create_connection",
    "create_server",
    "get_header",
    "open_connection",
    "open_streams",
    "open_transport",
    "open_unix_connection",
    "parse",
    "parse_datagram",
    "start_server",
]

_annotations.move_to(__name__, [globals()[_name] for _name in __all__])
