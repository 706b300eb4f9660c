"""gevent's servers on a Listener: `StreamServer`, and `WSGIServer` of gevent.pywsgi.

Typical use::

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        WSGIServer(listener, app).serve_forever()

Both are gevent's, but for the sockets that handlers get: these know the header and the client's address.
"""

from __future__ import annotations

import errno
from contextlib import closing
from typing import TYPE_CHECKING, Any

try:
    import gevent.pywsgi
    import gevent.server
    import gevent.socket
except ImportError as missing:
    raise ImportError("proxyproto_rs.gevent needs gevent: pip install gevent", name="gevent") from missing

from . import Header, ProxiedSocket

if TYPE_CHECKING:
    _Server = gevent.server.StreamServer
else:
    _Server = object

__all__ = ["AcceptsFromListener", "GeventSocket", "StreamServer", "WSGIServer"]


class GeventSocket(gevent.socket.socket):
    """A connection as a socket of gevent's: `getpeername()` is the client, as in a `ProxiedSocket`.

    Attributes:
        header: The `Header`; None where the peer was served without one.
        proxy_peername: The TCP connection's other end, which is the proxy.
        proxy_sockname: The TCP connection's own end.
    """

    header: Header | None

    def __init__(self, conn: ProxiedSocket) -> None:
        """Take over a connection."""
        self.header, self.proxy_peername = conn.header, conn.proxy_peername
        self.proxy_sockname = conn.proxy_sockname
        self._peername, self._sockname = conn.getpeername(), conn.getsockname()
        self._conn = conn
        super().__init__(conn.family, conn.type, conn.proto, fileno=conn.detach(keep_place=True))

    def getpeername(self) -> Any:
        """Return the client's address."""
        super().getpeername()  # raises what it raises
        return self._peername

    def getsockname(self) -> Any:
        """Return the address the client connected to."""
        super().getsockname()
        return self._sockname

    def close(self) -> None:
        """Close it, and give the client's place back, once the files that `makefile()` made of it are closed."""
        super().close()
        if self.fileno() < 0:
            self._conn.close()


class AcceptsFromListener(_Server):
    """Put before a subclass of gevent's StreamServer, it makes that serve a `Listener`."""

    def do_read(self) -> Any:
        """Return a connection and the client's address, or None."""
        listener: Any = self.socket
        try:
            conn: Any = listener.try_accept()
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            self.close()  # the Listener is closed or drained
            return None
        if conn is None:
            return None
        sock = GeventSocket(conn)
        return sock, sock.getpeername()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """Negotiate TLS, and keep what is known of the client, and its place."""
        server: Any = self
        sockname = client_socket.getsockname()
        with closing(client_socket), server.wrap_socket(client_socket, **server.ssl_args) as secure:
            secure.header, secure.proxy_peername = client_socket.header, client_socket.proxy_peername
            secure.getpeername, secure.getsockname = lambda: address, lambda: sockname
            return self.handle(secure, address)


class StreamServer(AcceptsFromListener, gevent.server.StreamServer):
    """A `gevent.server.StreamServer` whose ``listener`` is a `Listener`."""


class WSGIServer(AcceptsFromListener, gevent.pywsgi.WSGIServer):
    """A `gevent.pywsgi.WSGIServer` whose ``listener`` is a `Listener`."""
