"""The fixed part of a header: command, family, transport.

The values are the protocol's own numbers. They are not those of the `socket` module, so these are plain enums: as an
IntEnum, ``Family.INET6`` would equal `socket.AF_INET`.
"""

from __future__ import annotations

from enum import Enum, unique

__all__ = ["Command", "Family", "Transport"]


@unique
class Command(Enum):
    """For whom the sender speaks. The values are those of version 2."""

    LOCAL = 0
    """For itself, as in a health check. The connection's own endpoints apply (R23)."""
    PROXY = 1
    """For a client, whose addresses the header carries (R24). Every header of version 1 has this command."""


@unique
class Family(Enum):
    """The kind of addresses in the header. The values are those of version 2."""

    UNSPEC = 0
    """None: the command is LOCAL, the line is ``PROXY UNKNOWN``, or the sender cannot name the family (R10, R23, R26)."""
    INET = 1
    """IPv4."""
    INET6 = 2
    """IPv6."""
    UNIX = 3
    """UNIX domain sockets."""


@unique
class Transport(Enum):
    """The kind of the client's socket. The values are those of version 2."""

    UNSPEC = 0
    """The header does not say."""
    STREAM = 1
    """TCP, or a UNIX stream socket."""
    DGRAM = 2
    """UDP, or a UNIX datagram socket."""
