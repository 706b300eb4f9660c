"""The servers of the standard library on a Listener: socketserver, http.server, wsgiref.

Typical use::

    class Server(ListenerMixIn, ThreadingHTTPServer):
        pass

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        Server(listener, Handler).serve_forever()          # with TLS: Server(listener, Handler, ssl=context)
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import socketserver
import ssl as tls
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import Command, Listener, ProxiedSocket, ProxiedSSLSocket, get_header

if TYPE_CHECKING:
    _Server = socketserver.TCPServer
else:
    _Server = object

__all__ = ["ListenerMixIn"]

logger: logging.Logger = logging.getLogger("proxyproto_rs.socketserver")


class ListenerMixIn(_Server):
    """Put before `TCPServer`, `HTTPServer`, `WSGIServer` or a subclass of these, it makes them serve a `Listener`.

    Handlers get the client's address as ``self.client_address``, and a `ProxiedSocket` as ``self.request``. With TLS that
    is a `ProxiedSSLSocket`. Its ``header`` is the header. A `WSGIServer` with TLS tells its applications so in
    ``environ["HTTPS"]`` and ``environ["wsgi.url_scheme"]``.

    The TLS handshake takes place where the handler runs: in the connection's thread with `ThreadingMixIn`, in its child
    with `ForkingMixIn`. Without either the server serves one client at a time, and waits for its handshake. A handshake
    that fails is logged at DEBUG, because strangers can cause any number of them.

    With `ForkingMixIn` a client keeps its place among the open connections until the child has ended.
    """

    def __init__(
        self,
        listener: Listener,
        RequestHandlerClass: Callable[..., Any],
        *,
        ssl: tls.SSLContext | None = None,
        ssl_handshake_timeout: float = 60.0,
    ) -> None:
        """Serve a Listener, which belongs to the server from now on.

        Args:
            listener: It is closed with the server.
            RequestHandlerClass: As in `socketserver.BaseServer`.
            ssl: Serve with TLS, which begins behind the header.
            ssl_handshake_timeout: How long the whole handshake may take, in seconds.
        """
        super().__init__(listener.getsockname(), RequestHandlerClass, bind_and_activate=False)
        self.socket.close()
        self.socket: socket.socket = listener
        self._listener = listener
        self._ssl = ssl
        self._ssl_handshake_timeout = ssl_handshake_timeout
        # The connections that children serve, by process id; the parent's own descriptors of them are closed.
        self._forked: dict[int, ProxiedSocket] = {}
        self._being_forked: Any = None
        self._name_server()

    def get_request(self) -> tuple[ProxiedSocket, Any]:
        """Return a connection and the client's address.

        Raises:
            OSError: There is none, or the Listener is closed.
        """
        # accept() would wait if there is none after all: refusals make the Listener readable too.
        conn = self._listener.try_accept()
        if conn is None:
            raise BlockingIOError
        return conn, conn.getpeername()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Do what the server does with a connection. If that is a fork, keep the client's place for the child."""
        if not isinstance(self, socketserver.ForkingMixIn):
            super().process_request(request, client_address)
            return
        others = frozenset(self.active_children or ())
        self._being_forked = request
        try:
            super().process_request(request, client_address)
        finally:
            self._being_forked = None
        for process_id in frozenset(self.active_children or ()) - others:
            self._forked[process_id] = request

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make the TLS handshake, if there is to be TLS, and let the handler serve the client."""
        if self._ssl is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(self._ssl_handshake_timeout)
        try:
            secure = request.start_tls(self._ssl)
        except OSError as error:
            logger.debug("%s: the TLS handshake failed: %s", client_address, error)
            return
        try:
            secure.settimeout(None)
            super().finish_request(secure, client_address)
        finally:
            _end_tls(secure)
            # The caller shuts down `request`, which has given its fd away.
            self.shutdown_request(secure)

    def close_request(self, request: Any) -> None:
        """Close the connection."""
        if request is self._being_forked and request.fileno() >= 0:
            os.close(request.detach(keep_place=True))
        else:
            super().close_request(request)

    def collect_children(self, *, blocking: bool = False) -> None:
        """Give back the places of clients whose child has ended; of `socketserver.ForkingMixIn`."""
        super().collect_children(blocking=blocking)  # type: ignore[misc] # called with ForkingMixIn only
        running = self.active_children or ()  # type: ignore[attr-defined] # of ForkingMixIn
        for process_id in [process_id for process_id in self._forked if process_id not in running]:
            self._forked.pop(process_id).close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback, as socketserver does, unless a health check has ended its connection."""
        if isinstance(sys.exc_info()[1], ConnectionError) and _is_health_check(request):
            logger.debug("%s has closed its health check", client_address)
        else:
            super().handle_error(request, client_address)

    def _name_server(self) -> None:
        """Do what `HTTPServer` and `WSGIServer` do when they bind, without asking a resolver."""
        address = self.server_address
        host, port = address[:2] if isinstance(address, tuple) else (address, 0)
        vars(self).update(server_name=host, server_port=port)
        if (setup_environ := getattr(self, "setup_environ", None)) is not None:
            setup_environ()
            if self._ssl is not None:
                vars(self)["base_environ"]["HTTPS"] = "on"  # from which wsgiref takes wsgi.url_scheme


def _end_tls(secure: ProxiedSSLSocket) -> None:
    """Tell the client that nothing follows. Do not wait for its answer, which may never come."""
    # The client may have gone, or the handler may have ended TLS.
    with contextlib.suppress(OSError, ValueError):
        secure.settimeout(0)
        secure.unwrap()


def _is_health_check(request: object) -> bool:
    header = get_header(request)
    return header is not None and header.command is Command.LOCAL
