"""ASGI: what the PROXY header says, in the scope of each request.

Typical use::

    app = ProxyProtocolMiddleware(app)     # outermost: what is around it may change or hide what it looks at

    async def endpoint(request):           # Starlette, FastAPI
        facts = request.scope["extensions"]["proxy_protocol"]
        header = get_header(request)

The server has to listen on a `Listener` in the same process: uvicorn, hypercorn and gunicorn's workers for ASGI can.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import Header, SslInfo, get_header

__all__ = ["ProxyProtocolMiddleware"]

logger = logging.getLogger("proxyproto_rs.asgi")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ProxyProtocolMiddleware:
    """Adds to the scope of requests and WebSockets what the connection's PROXY header says.

    * ``scope["extensions"]["proxy_protocol"]``, if there was a header: a dict of ``version`` (1 or 2), ``command``
      ("PROXY" or "LOCAL"), ``source`` and ``destination`` (as ``scope["client"]`` and ``scope["server"]`` have
      addresses; None where the header names none), ``authority`` (str), ``alpn`` and ``unique_id`` (bytes), ``tls``
      and ``tlvs`` (a list of type and bytes). ``tls`` is None unless the client came over TLS, and else a dict of
      ``version``, ``cipher``, ``client_name`` (the common name of its certificate) and ``verified`` (whether there was
      a certificate, and the proxy has verified it). What the header does not say is None.
    * ``scope["scheme"]`` becomes "https" or "wss" if the client came over TLS.
    * ``scope["client"]`` and ``scope["server"]`` are set where the server could not, as on a UNIX socket.

    `proxyproto_rs.get_header` takes the scope, or a request that has one, and returns the `Header`. Scopes of other
    types, such as "lifespan", pass as they are. So do those of connections that no Listener has accepted; the first
    of them is logged.
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
    # uvicorn's `receive` belongs to an object that has the transport. Elsewhere the context of the connection tells.
    header = get_header(getattr(receive, "__self__", None), _UNKNOWN)
    return get_header(scope, _UNKNOWN) if header is _UNKNOWN else header


def _with_header(scope: Scope, header: Header) -> Scope:
    """Return a copy of the scope, as the specification wants it of a middleware, with what the header says."""
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
    """Give an IPv6 address as ASGI has it: the host and the port."""
    return address[:2] if isinstance(address, tuple) else address


_TLS_SCHEMES = {"http": "https", "websocket": "wss"}
_UNKNOWN = object()
