"""The PROXY protocol for Python servers: a listening socket whose accept() has already read the header."""

from __future__ import annotations

from ._connect import create_connection, open_connection
from ._core import Decoder, Header, SslInfo, __version__, parse, parse_datagram
from ._enums import Command, Family, Transport
from .exceptions import IncompleteHeader, InvalidHeader, ProxyProtocolError

__all__ = [
    "Command",
    "Decoder",
    "Family",
    "Header",
    "IncompleteHeader",
    "InvalidHeader",
    "ProxyProtocolError",
    "SslInfo",
    "Transport",
    "__version__",
    "create_connection",
    "open_connection",
    "parse",
    "parse_datagram",
]
