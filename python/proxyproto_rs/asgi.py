"""ASGI: a middleware that puts what the PROXY header says into the scope of each request.

Typical use::

    app = ProxyProtocolMiddleware(app)     # the outermost middleware: others may hide the connection from it

    async def endpoint(request):           # Starlette, FastAPI
        facts = request.scope["extensions"]["proxy_protocol"]
        header = get_header(request)

The server must listen on a `Listener` in the same process. uvicorn, hypercorn and gunicorn's workers for ASGI can.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import Header, SslInfo, get_header

__all__ = ["ProxyProtocolMiddleware"]

logger: logging.Logger = logging.getLogger("proxyproto_rs.asgi")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ProxyProtocolMiddleware:
    """Adds what the PROXY header of the connection says to the scope of requests and WebSockets.

    If there was a header, ``scope["extensions"]["proxy_protocol"]`` is a dict. What the header does not say is None.

    * ``version``: 1 or 2.
    * ``command``: "PROXY" or "LOCAL".
    * ``source`` and ``destination``: addresses, in the form of ``scope["client"]``.
    * ``authority``: the name that the client asked for, a str.
    * ``alpn`` and ``unique_id``: bytes.
    * ``tls``: None if the client did not use TLS. Otherwise a dict of ``version``, ``cipher``, ``client_name`` (the
      common name of the client's certificate) and ``verified`` (whether the client had a certificate and the proxy
      has verified it).
    * ``tlvs``: a list of (type, bytes).

    Two more parts of the scope change:

    * ``scope["scheme"]`` becomes "https" or "wss" if the client used TLS.
    * ``scope["client"]`` and ``scope["server"]`` are set if the server has left them None, as on a UNIX socket.

    `proxyproto_rs.get_header` takes the scope, or a request that has one, and returns the `Header`. Scopes of other
    types, such as "lifespan", do not change. Scopes of connections that no Listener has accepted do not change either;
    the first of these is logged.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in _TLS_SCHEMES:
            header = _find_header(scope, receive)
            if header is _UNKNOWN:
                self._warn(scope)
            elif isinstance(header, Header):
                scope = _with_header(scope, header)
            else:
                scope = {**scope, "proxyproto.header": None}
        await self.app(scope, receive, send)

    def _warn(self, scope: Scope) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "ProxyProtocolMiddleware does not know the connection of %s: no Listener has accepted it, or something "
                "between the server and this middleware hides that. Pass a Listener to the server, let this middleware "
                "be the outermost, and leave uvicorn's reset_contextvars off. Later requests are not logged.",
                scope.get("client"),
            )


def _find_header(scope: Scope, receive: Receive) -> object:
    """Return the header, None where there was none, or `_UNKNOWN`."""
    # uvicorn's `receive` is a method of an object that has the transport. With other servers, the context tells.
    header = get_header(getattr(receive, "__self__", None), _UNKNOWN)
    return get_header(scope, _UNKNOWN) if header is _UNKNOWN else header


def _with_header(scope: Scope, header: Header) -> Scope:
    """Return a copy of the scope with what the header says. The specification asks a middleware for a copy."""
    tls = header.ssl if header.ssl and header.ssl.client_tls else None
    source, destination = _address(header.source), _address(header.destination)
    facts = {
        "version": header.version,
        "command": header.command.name,
        "source": source,
        "destination": destination,
        "authority": header.authority,
        "alpn": header.alpn,
        "unique_id": header.unique_id,
        "tls": None if tls is None else _tls_facts(tls),
        "tlvs": list(header.tlvs),
    }
    scope = {
        **scope,
        "extensions": {**(scope.get("extensions") or {}), "proxy_protocol": facts},
        "proxyproto.header": header,
    }
    if tls is not None:
        scope["scheme"] = _TLS_SCHEMES[scope["type"]]
    for name, address in (("client", source), ("server", destination)):
        if scope.get(name) is None and isinstance(address, tuple):
            scope[name] = address
    return scope


def _tls_facts(tls: SslInfo) -> dict[str, Any]:
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "client_name": tls.cn,
        "verified": tls.verified,
    }


def _address(address: Any) -> Any:
    """Return an address as ASGI writes it: the host and the port, for IPv6 too."""
    return address[:2] if isinstance(address, tuple) else address


_TLS_SCHEMES = {"http": "https", "websocket": "wss"}
_UNKNOWN = object()
