"""What uvloop is given in place of a socket: it wants the number of an fd, and to close that itself.

A socket object costs 1.2 us and a system call to make, and again to take apart when uvloop has closed its fd;
here it is made when somebody asks the transport for it, which hardly anybody does.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from ._proxied_socket import ProxiedSocket

if TYPE_CHECKING:
    import asyncio

    from ._core import Connection, Header
    from ._wrapped_loop import WrappedServer


class SocketStandIn:
    """An accepted connection whose fd becomes uvloop's. It has of a socket what `connect_accepted_socket` looks at."""

    __slots__ = ("_connection", "_proto", "_socket", "family", "fileno", "server", "transport")

    server: WrappedServer
    transport: asyncio.BaseTransport | None
    type = socket.SOCK_STREAM

    def __init__(self, connection: Connection, proto: int) -> None:
        self._connection = connection
        self._proto = proto
        self._socket: ProxiedSocket | None = None
        self.family = connection.family
        # uvloop asks for it as it takes the fd over, and Python cannot be interrupted in between.
        self.fileno = connection.give_to_loop

    def socket(self, fd: int) -> ProxiedSocket:
        """Return the connection as a socket, on a duplicate of uvloop's fd.

        Raises:
            OSError: uvloop has closed it, and nobody had asked before.
        """
        if self._socket is None:
            self._socket = ProxiedSocket(self._connection.dup(fd), self._proto)
        return self._socket

    def close(self) -> None:
        """uvloop has closed the fd, or will never have it."""
        if self._socket is not None:
            self._socket.close()
        self._connection.close()
        self.server._ended(self)

    @property
    def header(self) -> Header | None:
        """As a `ProxiedSocket` has it."""
        return self._connection.header

    @property
    def proxy_peername(self) -> Any:
        """As a `ProxiedSocket` has it."""
        return self._connection.proxy_peername
