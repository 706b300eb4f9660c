"""WSGI: a middleware that puts the PROXY header into the environ of each request.

Typical use::

    app = ProxyProtocolMiddleware(app)     # the outermost middleware: others may hide the connection from it

    def app(environ, start_response):
        header = environ["proxyproto.header"]                          # or get_header(environ)

The server must accept from a `Listener` in the same process, as gunicorn's workers do with `proxyproto_rs.gunicorn`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from . import Header, get_header

__all__ = ["ProxyProtocolMiddleware"]

logger: logging.Logger = logging.getLogger("proxyproto_rs.wsgi")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class ProxyProtocolMiddleware:
    """Adds the PROXY header of the connection to the environ.

    * ``environ["proxyproto.header"]`` is the `Header`, or None if the connection has none. `proxyproto_rs.get_header`
      takes the environ, or a request that has one.
    * ``environ["wsgi.url_scheme"]`` becomes "https" if the header says that the client used TLS.

    It finds the connections of gunicorn, waitress, cheroot, wsgiref and gevent.pywsgi. If it does not find one, it logs
    the first such request.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self._has_warned = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        header = _find_header(environ)
        if header is _UNKNOWN:
            self._warn(environ)
            header = None
        environ["proxyproto.header"] = header
        if isinstance(header, Header) and header.ssl and header.ssl.client_tls:
            environ["wsgi.url_scheme"] = "https"
        return self.app(environ, start_response)

    def _warn(self, environ: Environ) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "ProxyProtocolMiddleware does not know the connection of %s: no Listener has accepted it, or %s shows it "
                "in no way that is known. Let the server accept from a Listener, and let this middleware be the "
                "outermost. Later requests are not logged.",
                environ.get("REMOTE_ADDR") or "a client",
                environ.get("SERVER_SOFTWARE") or "the server",
            )


def _find_header(environ: Environ) -> object:
    """Return the header, None where there was none, or `_UNKNOWN`."""
    header: object = _UNKNOWN
    for place in _places(environ):
        header = get_header(place, _UNKNOWN)
        if header is not _UNKNOWN:
            break
    return header


def _places(environ: Environ) -> Iterable[object]:
    """Return what may lead to the connection: each server puts it elsewhere."""
    yield environ
    yield environ.get("gunicorn.socket")
    # waitress gives a method of its connection.
    yield getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    # Other servers read the body from a file of `makefile()`, some of them through a file that counts bytes.
    body = environ.get("wsgi.input")
    for file in (body, getattr(body, "rfile", None)):
        yield getattr(getattr(file, "raw", None), "_sock", None)


_UNKNOWN = object()
