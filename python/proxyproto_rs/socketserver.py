"""The servers of the standard library on a Listener: socketserver, http.server, wsgiref.

Typical use::

    class Server(ListenerMixIn, ThreadingHTTPServer):
        pass

    with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:
        Server(listener, Handler).serve_forever()
"""

from __future__ import annotations

import logging
import os
import socketserver
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import Command, Listener, ProxiedSocket, get_header

if TYPE_CHECKING:
    _Server = socketserver.TCPServer
else:
    _Server = object

__all__ = ["ListenerMixIn"]

logger = logging.getLogger("proxyproto_rs.socketserver")


class ListenerMixIn(_Server):
    """Put before `TCPServer`, `HTTPServer`, `WSGIServer` or a subclass of these, it makes them serve a `Listener`.

    Handlers get the client's address as ``self.client_address``, and a `ProxiedSocket` as ``self.request``, whose
    ``header`` is the header.

    With `ForkingMixIn` a client's place among the open connections is kept until the child is done with it.
    """

    def __init__(
        self,
        listener: Listener,
        RequestHandlerClass: Callable[..., Any],
    ) -> None:
        """Serve a Listener, which belongs to the server from now on.

        Args:
            listener: It is closed with the server.
            RequestHandlerClass: As in `socketserver.BaseServer`.
        """
        super().__init__(listener.getsockname(), RequestHandlerClass, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._listener = listener
        # The connections that children serve, by process id; the parent's own descriptors of them are closed.
        self._forked: dict[int, ProxiedSocket] = {}
        self._being_forked: ProxiedSocket | None = None
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
        """Do what the server does with a connection; if that is to fork, keep the client's place for the child."""
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

    def close_request(self, request: Any) -> None:
        """Close the connection."""
        if self._being_forked is not None and request is self._being_forked:
            os.close(self._being_forked.detach(keep_place=True))
        else:
            super().close_request(request)

    def collect_children(self, *, blocking: bool = False) -> None:
        """Give back the places of clients whose child has ended; of `socketserver.ForkingMixIn`."""
        super().collect_children(blocking=blocking)  # type: ignore[misc] # called with ForkingMixIn only
        running = self.active_children or ()  # type: ignore[attr-defined] # of ForkingMixIn
        for process_id in [process_id for process_id in self._forked if process_id not in running]:
            self._forked.pop(process_id).close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback, as socketserver does, but for health checks that have gone."""
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


def _is_health_check(request: object) -> bool:
    header = get_header(request)
    return header is not None and header.command is Command.LOCAL
