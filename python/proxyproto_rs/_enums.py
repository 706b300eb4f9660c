"""What a header says in its fixed part: command, family, transport.

These are plain enums, not IntEnums: their values are the protocol's own numbers, and a comparison such as
``header.family == socket.AF_INET`` would be true for INET6.
"""

from __future__ import annotations

from enum import Enum, unique

__all__ = ["Command", "Family", "Transport"]


@unique
class Command(Enum):
    """Whom the sender speaks for. The values are the command nibble of version 2."""

    LOCAL = 0
    """The proxy itself, as in a health check: the connection's own endpoints apply (R23)."""
    PROXY = 1
    """A client, whose addresses the header carries (R24); so is every header of version 1."""


@unique
class Family(Enum):
    """The kind of addresses in the header. The values are the family nibble of version 2."""

    UNSPEC = 0
    """No addresses: LOCAL, ``PROXY UNKNOWN``, or a family the sender cannot name (R10, R23, R26)."""
    INET = 1
    """IPv4."""
    INET6 = 2
    """IPv6."""
    UNIX = 3
    """UNIX domain sockets."""


@unique
class Transport(Enum):
    """The kind of socket the client used. The values are the transport nibble of version 2."""

    UNSPEC = 0
    """Not said."""
    STREAM = 1
    """TCP, or a UNIX stream socket."""
    DGRAM = 2
    """UDP, or a UNIX datagram socket."""
