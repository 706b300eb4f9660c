"""The aiohttp application: each route of the tables, its token, its parameters, its body, and its answer as JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError

from ..store.protocol import StoreError, StoreUnavailable
from ..telling.faults import Faults
from . import address, blocks, events, metrics, overview, sessions, unauthorized
from .call import Call, Result, Route
from .errors import ApiError, error_body
from .guard import Guard, by_of
from .openapi import document
from .page import Page
from .queries import read, text_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .broker import Broker

ROUTES: tuple[Route, ...] = (
    *overview.ROUTES,
    *sessions.ROUTES,
    *unauthorized.ROUTES,
    *blocks.ROUTES,
    *address.ROUTES,
)

MAX_BODY = 65536
"""Bytes of a request's body. The largest block takes about 2,000."""

_HEADERS = {
    "Server": "proxyproto_rs",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_logger = logging.getLogger("proxyproto_rs.mqtt")


def application(broker: Broker, guard: Guard) -> web.Application:
    """Make the application."""
    faults = Faults(_logger)

    @web.middleware
    async def around(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = await _answered(request, handler, guard, faults)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    app = web.Application(middlewares=[around], client_max_size=MAX_BODY)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _handler(route, broker, guard))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, _handler(route, broker, guard))
    described = document(ROUTES)

    async def openapi(request: web.Request) -> web.Response:
        guard.access(request, "read")
        return _json(request, described)

    app.router.add_get("/api/openapi.json", openapi)
    app.router.add_get("/metrics", metrics.handler(broker, guard))
    app.router.add_get("/api/events", events.handler(broker, guard, _HEADERS))
    Page().add_to(app)
    return app


async def _answered(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    guard: Guard,
    faults: Faults,
) -> web.StreamResponse:
    try:
        guard.check_host(request)
        return await handler(request)
    except ApiError as wrong:
        return _error(wrong.status, wrong.message, wrong.headers)
    except StoreUnavailable as wrong:
        return _error(503, str(wrong))
    except StoreError as wrong:
        return _error(500, str(wrong))
    except web.HTTPException as wrong:
        allow = wrong.headers.get("Allow")
        return _error(wrong.status, wrong.reason, {} if allow is None else {"Allow": allow})
    except asyncio.CancelledError:
        raise
    except Exception as wrong:  # a fault in one answer must not end others
        faults.note(wrong, f"a request failed: {request.method} {request.path[:200]!r}")
        return _error(500, "a fault of the broker; its log says more")


def _handler(route: Route, broker: Broker, guard: Guard) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        access = guard.access(request, route.needs)
        names = dict.fromkeys(request.query)
        parameters = read(route.parameters, {name: request.query.getall(name) for name in names})
        body = None if route.body is None else await _body(request, route)
        value = await route.handler(Call(broker, parameters, body, by_of(request), access))
        if isinstance(value, Result):
            return _json(request, value.value, value.status)
        return _json(request, value)

    return handle


async def _body(request: web.Request, route: Route) -> Any:
    if request.content_type != "application/json":
        raise ApiError(415, f"the body must be application/json (got {request.content_type[:100]!r})")
    raw = await request.read()
    assert route.body is not None
    try:
        return route.body.model_validate_json(raw)
    except ValidationError as wrong:
        raise ApiError(400, text_of(wrong)) from None


def _json(request: web.Request, value: Any, status: int = 200) -> web.Response:
    data = json.dumps(value, separators=(",", ":"), default=str).encode()
    tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag}
    if status == 200 and request.headers.get("If-None-Match") == tag:  # noqa: PLR2004 (the status of an answer)
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, status=status, content_type="application/json", headers=headers)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    data = json.dumps(error_body(status, message)).encode()
    return web.Response(body=data, status=status, content_type="application/json", headers=headers)
