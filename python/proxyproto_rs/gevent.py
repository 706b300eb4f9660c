"""gevent's servers on a Listener: `StreamServer`, and `WSGIServer` of gevent.pywsgi.

Typical use::

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        WSGIServer(listener, app).serve_forever()

Both are gevent's servers. Only the sockets that handlers get are ours: they know the header and the client's address.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

try:
    import gevent.pywsgi
    import gevent.server
    import gevent.socket
except ImportError as _missing:
    raise ImportError("proxyproto_rs.gevent needs gevent: pip install gevent", name="gevent") from _missing

from . import ProxiedConnection, ProxiedSocket

if TYPE_CHECKING:
    _Server = gevent.server.StreamServer
else:
    _Server = object

__all__ = ["AcceptsFromListener", "GeventSocket", "StreamServer", "WSGIServer"]


class GeventSocket(ProxiedConnection, gevent.socket.socket):
    """A connection as a socket of gevent's. It knows the header and the client, as a `ProxiedSocket` does.

    TLS begins as on any other socket: the result of ``context.wrap_socket(sock, server_side=True)`` knows them too.
    """

    def __init__(self, conn: ProxiedSocket) -> None:
        """Take over a connection."""
        super().__init__(conn.family, conn.type, conn.proto, fileno=conn.detach(keep_place=True))
        self.take_place(conn)


class AcceptsFromListener(_Server):
    """A mixin that makes a subclass of gevent's StreamServer serve a `Listener`. Name it before that class.

    Typical use::

        class Server(AcceptsFromListener, MyStreamServer):
            pass
    """

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


class StreamServer(AcceptsFromListener, gevent.server.StreamServer):
    """A `gevent.server.StreamServer` whose ``listener`` is a `Listener`."""


class WSGIServer(AcceptsFromListener, gevent.pywsgi.WSGIServer):
    """A `gevent.pywsgi.WSGIServer` whose ``listener`` is a `Listener`."""
