"""The PROXY protocol for Python servers: a listening socket whose accept() has already read the header."""

from __future__ import annotations

from ._connect import create_connection, open_connection
from ._core import (
    AddressSet,
    ClientLimits,
    Decoder,
    Header,
    SslInfo,
    __version__,
    parse,
    parse_datagram,
)
from ._enums import Command, Family, Transport
from ._get_header import get_header
from ._listener import Listener
from ._loops.serve import open_streams
from ._proxied_socket import ProxiedSocket
from ._reports import ListenerStats, Refusal
from .exceptions import IncompleteHeader, InvalidHeader, ProxyProtocolError

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
    "ListenerStats",
    "ProxiedSocket",
    "ProxyProtocolError",
    "Refusal",
    "SslInfo",
    "Transport",
    "__version__",
    "create_connection",
    "get_header",
    "open_connection",
    "open_streams",
    "parse",
    "parse_datagram",
]
