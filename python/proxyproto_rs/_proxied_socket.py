"""Accepted connections: `ProxiedSocket`, and `ProxiedSSLSocket` with TLS.

Their two ends are the client and the address the client connected to. The TCP connection's own ends, the proxy and
this server, have names of their own.
"""

from __future__ import annotations

import errno
import functools
import opcode
import os
import socket
import ssl
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ._core import Connection, Header
from ._loops.which import runs_uvloop

if TYPE_CHECKING:
    from types import FrameType

    _Socket = socket.socket
else:
    _Socket = object

__all__ = ["ProxiedConnection", "ProxiedSSLSocket", "ProxiedSocket"]

serving: ContextVar[Connection] = ContextVar("proxyproto_rs.serving")
"""The connection that an event loop serves in this context: its protocol runs here, and all that this starts."""


class ProxiedConnection(_Socket):
    """What every accepted connection has, with TLS and without: the header, the addresses and the client's place.

    `ProxiedSocket`, `ProxiedSSLSocket` and `proxyproto_rs.gevent.GeventSocket` put it before a socket class.
    """

    __slots__ = ()

    connection: Connection
    _proxy_sockname: Any

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
        # It costs a system call, and few callers ask. So the first one pays for it.
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
        if self.fileno() < 0:
            raise _closed()
        peername = self.connection.peername
        return self.connection.proxy_peername if peername is None else peername

    def getsockname(self) -> Any:
        """Return the address the client connected to: the header's destination, or our own where it gives
        none.

        Raises:
            OSError: The socket is closed.
        """
        if self.fileno() < 0:
            raise _closed()
        sockname = self.connection.sockname
        return self.proxy_sockname if sockname is None else sockname

    def close(self) -> None:
        """Close the socket, once the files that `makefile()` made of it are closed."""
        super().close()
        if self.fileno() < 0:
            self.give_back()

    def detach(self, *, keep_place: bool = False) -> int:
        """Return the fd, which the caller owns from now on, and give the client's place back.

        Args:
            keep_place: Keep the client's place until `close()`. It is for a caller that hands the fd to another
                library: limits hold while that serves the client. The header stays here. The addresses do not.
        """
        fd = super().detach()
        tls = None if keep_place else _tls_socket_on(fd, sys._getframe(1))
        if tls is not None:
            tls.__class__ = _proxied(tls.__class__)
            tls.take_place(self)
        elif not keep_place:
            self.give_back()
        return fd

    def take_place(self, other: ProxiedConnection) -> None:
        """Become the connection that `other` was, and keep the client's place from now on; the fd has moved already."""
        self.connection = other.connection.move_place()

    def give_back(self) -> None:
        """Give the client's place among the open connections back, after the fd."""
        self.connection.release()


class ProxiedSocket(ProxiedConnection, socket.socket):
    """An accepted connection; a `Listener` makes it.

    Typical use::

        conn, address = listener.accept()
        host, port = conn.getpeername()[:2]  # the client's
        header = conn.header

    It does what a `socket.socket` does, in the same way, except that `getpeername()` and `getsockname()` answer from
    the header. Closing, detaching or collecting it gives the client's place among its connections back.
    """

    __slots__ = ("_proxy_sockname", "_reads_much", "connection", "family")

    _proxy_sockname: Any

    # Event loops ask for both, and the socket module makes the enum member anew each time, which takes 0.4 us.
    family: socket.AddressFamily

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_STREAM.

        Raises:
            RuntimeError: uvloop asks. Its transports take their addresses from the kernel, so they would show the proxy.
        """
        if runs_uvloop() and not _reads_an_attribute(sys._getframe(1)):
            raise RuntimeError(_NOT_ON_UVLOOP)
        return socket.SOCK_STREAM

    def __init__(self, connection: Connection, proto: int) -> None:
        """Become the socket of `connection`, non-blocking. Listeners call this; the signature may change."""
        # With all of this the socket module makes one system call and takes 1.2 us. It would make four and take
        # 2.3 us to find out by itself.
        connection.initialize_socket(_initialize, self, _NON_BLOCKING_STREAM, proto)
        self.family = _FAMILIES[connection.family]
        self.connection: Connection = connection
        self._reads_much = False

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = True,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ProxiedSSLSocket:
        """Do what ``context.wrap_socket(self, ...)`` does, as a server unless told otherwise.

        The socket it returns takes over the fd, the timeout and the client's place, so this one is closed. A handshake
        that fails closes the connection and gives the place back.

        Typical use, in a thread of the connection's own::

            conn.settimeout(60)                # seconds for the whole handshake
            with conn.start_tls(context) as tls:
                tls.settimeout(None)
                serve(tls, tls.getpeername())  # the client's address

        Args:
            context: Its keys and rules.
            server_side: As in `ssl.SSLContext.wrap_socket`, where the default is the other one.
            do_handshake_on_connect: As in `ssl.SSLContext.wrap_socket`: make the handshake at once. A non-blocking
                socket needs False here, and calls of `do_handshake()`.
            suppress_ragged_eofs: As in `ssl.SSLContext.wrap_socket`.
            server_hostname: As in `ssl.SSLContext.wrap_socket`.
            session: As in `ssl.SSLContext.wrap_socket`.

        Raises:
            OSError: The handshake failed, as `ssl.SSLError`, `TimeoutError` and others.
            ValueError: The arguments do not fit each other, or the handshake cannot be made at once.
            TypeError: The context's ``sslsocket_class`` does not make its sockets as `ssl.SSLSocket` does. The connection
                is closed.
        """
        tls = context.wrap_socket(
            self,
            server_side=server_side,
            do_handshake_on_connect=do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            session=session,
        )
        if not isinstance(tls, ProxiedConnection):
            tls.close()
            raise TypeError(f"the context has made a {type(tls).__name__} that takes the proxy for its peer")
        # gevent's own kind of SSLSocket has the same methods.
        return tls  # type: ignore[return-value]

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


class ProxiedSSLSocket(ProxiedConnection, ssl.SSLSocket):
    """An accepted connection with TLS; `ProxiedSocket.start_tls` or ``context.wrap_socket(conn)`` makes it.

    It does what an `ssl.SSLSocket` does, and has the header, the addresses and the client's place of the
    `ProxiedSocket`.
    """


def _tls_socket_on(fd: int, caller: FrameType) -> Any:
    """Return the TLS socket that is taking over this fd where `detach()` was called; None if another caller did.

    `SSLContext.wrap_socket` makes its socket from the number of the fd, and calls `detach()` before it asks for the
    peer and makes the handshake. It offers no other way in. Its plain `SSLSocket` would name the proxy as its peer,
    and the client's place would be free from here on.

    Raises:
        TypeError: The module ssl takes the fd in a way that no Python up to 3.13 does.
    """
    # The modules ssl and gevent.ssl have this class. The locals of other callers are not looked at.
    kind: type[ssl.SSLSocket] | None = caller.f_globals.get("SSLSocket")
    if not isinstance(kind, type):
        return None
    taker = caller.f_locals.get("self")
    if isinstance(taker, kind) and taker.fileno() == fd:
        return taker
    if kind.__module__ == caller.f_globals.get("__name__"):
        raise TypeError(f"{kind.__module__}.SSLSocket of this version would take the proxy for its peer")
    return None


@functools.cache
def _proxied(kind: type[ssl.SSLSocket]) -> type[ssl.SSLSocket]:
    """Return the class of those TLS sockets of this kind that know their client."""
    if issubclass(ProxiedSSLSocket, kind):
        return ProxiedSSLSocket
    if issubclass(kind, ProxiedConnection):
        return kind
    first = ProxiedSSLSocket if issubclass(kind, _SSLSocket) else ProxiedConnection
    return type(f"Proxied{kind.__name__}", (first, kind), {})


def _reads_an_attribute(caller: FrameType) -> bool:
    """Whether the caller's program is at an attribute. It is not when C code that it called, such as uvloop, asks."""
    code, at = caller.f_code.co_code, caller.f_lasti
    # Python 3.12 and later stand behind the instruction, in its cache, once it has run often.
    while at > 0 and opcode.opname[code[at]] == "CACHE":
        at -= 2
    return opcode.opname[code[at]] in ("LOAD_ATTR", "LOAD_METHOD")


def _closed() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


_FAMILIES = {int(family): family for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)}
_NON_BLOCKING_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK

# asyncio offers each read 256 KiB. For more than 128 KiB malloc makes a mapping of its own, and gives it back after the
# read: with three system calls and page faults that takes 16 us of a short connection's 64 (CPython 3.11, glibc). Only
# a connection with more to read gains from it.
_READ_SIZE = 120 * 1024
_NOT_ON_UVLOOP = (
    "uvloop cannot make a transport of a ProxiedSocket, it would show the proxy as the client: use "
    "'await open_transport(sock, protocol_factory)' or 'await open_streams(sock)', run on proxyproto_rs.uvloop.Loop, or "
    "on asyncio's own loop"
)
_SSLSocket = ssl.SSLSocket
_recv = socket.socket.recv
_initialize = socket.socket.__init__
