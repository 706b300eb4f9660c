"""Tornado on a Listener: an HTTP server whose requests tell what the header says.

Typical use::

    async def main():
        with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
            HTTPServer(app).add_socket(listener)
            await asyncio.Event().wait()

Tornado's own server works too, with a Listener that does not block. But it asks the connection for its family, and so
calls every client of a UNIX listener 0.0.0.0; and it does not know that a client came to the proxy over TLS.
"""

from __future__ import annotations

import socket
from typing import Any

try:
    import tornado.httpserver
    import tornado.httputil
except ImportError as _missing:
    raise ImportError(
        "proxyproto_rs.tornado needs tornado: pip install tornado", name="tornado"
    ) from _missing
from collections.abc import Iterable

from . import Listener, get_header

__all__ = ["HTTPServer"]


class HTTPServer(tornado.httpserver.HTTPServer):
    """A `tornado.httpserver.HTTPServer` for Listeners.

    Of a request ``remote_ip`` is the client, and ``protocol`` is "https" if the client came over TLS, to the proxy or to
    this server. `proxyproto_rs.get_header` takes the request or its handler.
    """

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Serve these sockets, each of which may be a Listener."""
        sockets = list(sockets)
        for sock in sockets:
            if isinstance(sock, Listener):
                sock.setblocking(False)  # Tornado accepts until there is none
        super().add_sockets(sockets)

    def start_request(self, server_conn: object, request_conn: Any) -> tornado.httputil.HTTPMessageDelegate:
        """Begin a request; Tornado calls this."""
        header = get_header(request_conn)
        if header is not None and isinstance(header.source, tuple):
            request_conn.context.remote_ip = header.source[0]
        if header is not None and header.ssl and header.ssl.client_tls:
            request_conn.context.protocol = "https"
        return super().start_request(server_conn, request_conn)
