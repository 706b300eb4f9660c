"""ProxiedSocket: a connection whose two ends are the client and the address the client connected to.

The TCP connection's own ends, the proxy and this server, stand beside them.
"""

from __future__ import annotations

import errno
import os
import socket
from contextvars import ContextVar
from typing import Any

from ._core import Connection, Header

__all__ = ["ProxiedSocket"]

serving: ContextVar[Connection] = ContextVar("proxyproto_rs.serving")
"""The connection in whose context an event loop runs its protocol, and all that this starts."""


class ProxiedSocket(socket.socket):
    """An accepted connection; a `Listener` makes it.

    What a `socket.socket` can do it does in the same way, but for `getpeername()` and `getsockname()`, which
    answer from the header. Closing, detaching or collecting it gives the client's place among its connections
    back.
    """

    __slots__ = ("_proxy_sockname", "_reads_much", "connection", "family")

    _proxy_sockname: Any

    # Event loops ask for both, and the socket module makes the enum member anew each time, which takes 0.4 us.
    family: socket.AddressFamily
    type = socket.SOCK_STREAM

    def __init__(self, connection: Connection, proto: int) -> None:
        """Become the socket of `connection`, non-blocking. Listeners call this; the signature may change."""
        # Told so, the socket module costs one system call and 1.2 us; asked to find out by itself, four and
        # 2.3 us.
        connection.initialize_socket(_initialize, self, _NON_BLOCKING_STREAM, proto)
        self.family = _FAMILIES[connection.family]
        self.connection = connection
        self._reads_much = False

    @property
    def header(self) -> Header | None:
        """The header the connection began with; None where the peer was served without one."""
        return self.connection.header

    @property
    def proxy_peername(self) -> Any:
        """The TCP connection's other end, which is the proxy, in the socket module's shape."""
        return self.connection.proxy_peername

    @property
    def proxy_sockname(self) -> Any:
        """The TCP connection's own end: the address on which the proxy reached us.

        Raises:
            OSError: The socket was closed before this was asked for the first time.
        """
        # A system call for what hardly anybody asks, so not before somebody does.
        try:
            return self._proxy_sockname
        except AttributeError:
            self._proxy_sockname = super().getsockname()
            return self._proxy_sockname

    def getpeername(self) -> Any:
        """Return the client's address: the header's source, or the TCP peer's where the header gives none.

        Raises:
            OSError: The socket is closed.
        """
        if _fileno(self) < 0:
            raise _closed()
        peername = self.connection.peername
        return self.connection.proxy_peername if peername is None else peername

    def getsockname(self) -> Any:
        """Return the address the client connected to: the header's destination, or our own where it gives
        none.

        Raises:
            OSError: The socket is closed.
        """
        if _fileno(self) < 0:
            raise _closed()
        sockname = self.connection.sockname
        return self.proxy_sockname if sockname is None else sockname

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive what is there, up to `bufsize` bytes; up to 120 KiB where the last read gave less than that.

        With flags it is up to `bufsize` always.
        """
        if bufsize <= _READ_SIZE or flags:
            return _recv(self, bufsize, flags)
        data = _recv(self, bufsize if self._reads_much else _READ_SIZE)
        self._reads_much = len(data) >= _READ_SIZE
        return data

    def dup(self) -> ProxiedSocket:
        """Return a second socket of the same connection, with the same header and addresses.

        The client's place is given back when both are closed.
        """
        copy = ProxiedSocket(self.connection.dup(self.fileno()), self.proto)
        copy.settimeout(self.gettimeout())
        return copy

    def close(self) -> None:
        """Close the socket, once the files that `makefile()` made of it are closed."""
        super().close()
        if self.fileno() < 0:
            self.give_back()

    def detach(self, *, keep_place: bool = False) -> int:
        """Return the fd, which is the caller's from now on, and give the client's place back.

        Args:
            keep_place: Keep the client's place until `close()`, for who hands the fd to another library: limits
                hold while that serves the client. The header is still here, and the addresses are not.
        """
        fd = super().detach()
        if not keep_place:
            self.give_back()
        return fd

    def give_back(self) -> None:
        """Give the client's place among the open connections back; the fd is gone already."""
        self.connection.release()


def _closed() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


_FAMILIES = {int(family): family for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)}
_NON_BLOCKING_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK

# asyncio offers each read 256 KiB. What is larger than 128 KiB gets a mapping of its own from malloc, given back
# after the read: three system calls and page faults, 16 us of a short connection's 64 (CPython 3.11, glibc). Who
# has more to read is better off with it.
_READ_SIZE = 120 * 1024
_recv = socket.socket.recv
_fileno = socket.socket.fileno
_initialize = socket.socket.__init__
