"""What uvloop is given in place of a socket: it wants the number of an fd, and to close that itself.

A socket object costs 1.2 us and a system call to make, and again to take apart when uvloop has closed its fd.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from ._core import Connection, Header
    from ._wrapped_loop import WrappedServer


class SocketStandIn:
    """An accepted connection whose fd becomes uvloop's. It has of a socket what `connect_accepted_socket` looks at."""

    __slots__ = ("_connection", "family", "fileno", "server", "transport")

    server: WrappedServer
    transport: asyncio.BaseTransport | None
    type = socket.SOCK_STREAM

    def __init__(self, connection: Connection, _proto: int) -> None:
        self._connection = connection
        self.family = connection.family
        # uvloop asks for it when it takes the fd, so what asks for it has the fd from then on.
        self.fileno = connection.give_to_loop

    def refused(self) -> None:
        """uvloop has raised: if it was given the fd, it has not taken it."""
        self._connection.close_given()
        self.close()

    def close(self) -> None:
        """Give the client's place back. uvloop calls this when it has closed the fd."""
        self._connection.close()
        self.server._ended(self)


class ClientSocket:
    """uvloop's own view of a connection as a socket, with the client's addresses; a `TransportSocket` shows it."""

    __slots__ = ("_bare", "_connection")

    def __init__(self, bare: Any, connection: Connection) -> None:
        self._bare = bare
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bare, name)

    @property
    def header(self) -> Header | None:
        """As a `ProxiedSocket` has it."""
        return self._connection.header

    def getpeername(self) -> Any:
        """As a `ProxiedSocket` does it."""
        peername = self._connection.peername
        return self._bare.getpeername() if peername is None else peername

    def getsockname(self) -> Any:
        """As a `ProxiedSocket` does it."""
        sockname = self._connection.sockname
        return self._bare.getsockname() if sockname is None else sockname
