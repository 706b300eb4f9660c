"""The middleware for ASGI: the scope of each request says what its connection's header says, on every server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import uvicorn
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from integrations.asking import TLVS, WITH_TLS, ask_websocket, connection, get
from peers import CLIENT, LOCAL, SERVER, UNKNOWN, UNSPEC, V1, V2
from proxyproto_rs import Header, Listener, get_header
from proxyproto_rs.asgi import ProxyProtocolMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request

FACTS = {
    "version": 2,
    "command": "PROXY",
    "source": CLIENT,
    "destination": SERVER,
    "authority": "shop.example",
    "alpn": b"h2",
    "unique_id": b"id-1",
    "tls": {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "client_name": "sensor-17",
        "verified": True,
    },
    "tlvs": TLVS,
}
BARE = {**FACTS, "authority": None, "alpn": None, "unique_id": None, "tls": None, "tlvs": []}
NOBODY = {**BARE, "source": None, "destination": None}


class Application:
    """Keeps the scopes it has seen. It answers each request, and one message of each WebSocket."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.lifespan: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                self.lifespan.append((await receive())["type"])
                await send({"type": f"{self.lifespan[-1]}.complete"})
            return
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "ok"})
        await send({"type": "websocket.close"})


@contextlib.asynccontextmanager
async def running_uvicorn(app: Any, listener: Listener, **options: Any) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0)
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def running_hypercorn(app: Any, listener: Listener) -> AsyncIterator[None]:
    config, stop = Config(), asyncio.Event()
    config.errorlog = None
    sockets = Sockets([], [listener], [])
    task = asyncio.create_task(
        worker_serve(ASGIWrapper(app), config, sockets=sockets, shutdown_trigger=stop.wait)
    )
    try:
        yield
    finally:
        stop.set()
        await task


class Server(NamedTuple):
    name: str
    running: Callable[..., contextlib.AbstractAsyncContextManager[None]]


UVICORN = Server("uvicorn-h11", functools.partial(running_uvicorn, http="h11", ws="wsproto"))
HYPERCORN = Server("hypercorn", running_hypercorn)
SERVERS = [
    UVICORN,
    Server("uvicorn-httptools", functools.partial(running_uvicorn, http="httptools", ws="websockets-sansio")),
    Server("uvicorn-reset-contextvars", functools.partial(running_uvicorn, reset_contextvars=True)),
    HYPERCORN,
]

on_both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "proxyproto_rs.uvloop"])
on_each_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


@on_both_loops
@on_each_server
async def test_a_request_is_told_what_the_header_says(server: Server, listener: Listener) -> None:
    app = Application()
    async with server.running(ProxyProtocolMiddleware(app), listener):
        assert await asyncio.to_thread(get, listener) == "ok"
    (scope,) = app.scopes
    assert scope["extensions"]["proxy_protocol"] == FACTS
    assert (scope["scheme"], scope["client"], scope["server"]) == ("https", CLIENT, SERVER)
    assert get_header(scope) == WITH_TLS
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


@on_both_loops
@on_each_server
async def test_a_websocket_is_told_what_the_header_says(server: Server, listener: Listener) -> None:
    app = Application()
    async with server.running(ProxyProtocolMiddleware(app), listener):
        assert await asyncio.to_thread(ask_websocket, listener) == "ok"
    (scope,) = app.scopes
    assert scope["extensions"]["proxy_protocol"] == FACTS
    assert (scope["type"], scope["scheme"], scope["client"]) == ("websocket", "wss", CLIENT)


HEADERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "v1": (V1, {**BARE, "version": 1}),
    "v2": (V2, BARE),
    "v2-ipv6": (
        Header.v2(("2001:db8::1", 51724, 0, 0), ("2001:db8::2", 443, 0, 0)).raw,
        {**BARE, "source": ("2001:db8::1", 51724), "destination": ("2001:db8::2", 443)},
    ),
    "v2-unix": (
        Header.v2("/client", b"\0server").raw,
        {**BARE, "source": "/client", "destination": b"\0server"},
    ),
    "local": (LOCAL, {**NOBODY, "command": "LOCAL"}),
    "unspec": (UNSPEC, NOBODY),
    "unknown": (UNKNOWN, {**NOBODY, "version": 1}),
}


@on_both_loops
@pytest.mark.parametrize("server", [UVICORN, HYPERCORN], ids=lambda server: server.name)
@pytest.mark.parametrize(("header", "facts"), HEADERS.values(), ids=list(HEADERS))
async def test_every_kind_of_header(
    server: Server, header: bytes, facts: dict[str, Any], listener: Listener
) -> None:
    app = Application()
    async with server.running(ProxyProtocolMiddleware(app), listener):
        assert await asyncio.to_thread(get, listener, header) == "ok"
    (scope,) = app.scopes
    assert scope["extensions"]["proxy_protocol"] == facts
    assert scope["scheme"] == "http"


@on_both_loops
@on_each_server
async def test_a_connection_without_a_header_is_told_nothing(
    server: Server, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(trusted=["192.0.2.0/24"], untrusted="direct")
    app = Application()
    async with server.running(ProxyProtocolMiddleware(app), listener):
        assert await asyncio.to_thread(get, listener, b"") == "ok"
    (scope,) = app.scopes
    assert "proxy_protocol" not in scope.get("extensions", {})
    assert (scope["scheme"], get_header(scope, "unknown")) == ("http", None)
    assert [record for record in caplog.records if record.name == "proxyproto_rs.asgi"] == []


@on_both_loops
@on_each_server
async def test_connections_side_by_side_keep_their_own_headers(server: Server, listener: Listener) -> None:
    app = Application()
    clients = [("192.0.2.1", 1001), ("192.0.2.1", 1002), ("192.0.2.2", 1001)]

    def ask() -> None:
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(connection(listener, Header.v2(client, SERVER).raw)) for client in clients
            ]
            for _ in range(2):
                for proxied in connections:
                    proxied.get()

    async with server.running(ProxyProtocolMiddleware(app), listener):
        await asyncio.to_thread(ask)
    assert [scope["extensions"]["proxy_protocol"]["source"] for scope in app.scopes] == clients * 2


@on_both_loops
async def test_addresses_are_set_where_the_server_knows_none(tmp_path: Path) -> None:
    app = Application()
    listener = Listener.unix(tmp_path / "socket")
    async with running_hypercorn(ProxyProtocolMiddleware(app), listener):
        assert await asyncio.to_thread(get, listener) == "ok"
    (scope,) = app.scopes
    assert (scope["client"], scope["server"]) == (CLIENT, SERVER)


@on_both_loops
async def test_a_request_for_somebody_else_is_not_the_connections(listener: Listener) -> None:
    """An application may call another one, as httpx.ASGITransport does. Its scope names the client that it speaks for."""
    inner = Application()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":

            async def drop(_: Any) -> None: ...

            for client in (("127.0.0.1", 123), None, "somebody"):
                mine = {"type": "http", "scheme": "http", "client": client}
                await ProxyProtocolMiddleware(inner)(mine, receive=asyncio.Queue().get, send=drop)
        await Application()(scope, receive, send)

    async with running_hypercorn(outer, listener):
        assert await asyncio.to_thread(get, listener) == "ok"
    assert ["proxyproto.header" in scope for scope in inner.scopes] == [False, True, False]


async def test_who_is_served_by_no_listener_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    middleware = ProxyProtocolMiddleware(app)
    given = {"type": "http", "scheme": "http", "client": ("203.0.113.9", 4), "extensions": {"other": {}}}

    async def drop(_: Any) -> None: ...

    for _ in range(2):
        await middleware(given, asyncio.Queue[Any]().get, drop)
    assert all(scope is given for scope in app.scopes)
    assert len(given) == 4
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("proxyproto_rs.asgi", logging.WARNING)
    assert record.getMessage() == (
        "ProxyProtocolMiddleware does not know the connection of ('203.0.113.9', 4): no Listener has accepted it, or "
        "something between the server and this middleware hides that. Pass a Listener to the server, let this middleware "
        "be the outermost, and leave uvicorn's reset_contextvars off. Later requests are not logged."
    )


async def test_other_extensions_stay_and_the_servers_scope_is_not_touched() -> None:
    app = Application()
    given = {"type": "http", "scheme": "http", "proxyproto.header": WITH_TLS, "extensions": {"other": {}}}

    async def drop(_: Any) -> None: ...

    await ProxyProtocolMiddleware(app)(given, asyncio.Queue[Any]().get, drop)
    assert app.scopes[0]["extensions"] == {"other": {}, "proxy_protocol": FACTS}
    assert (given["extensions"], given["scheme"]) == ({"other": {}}, "http")


class Around(BaseHTTPMiddleware):
    """Stands between the server and the middleware, and hides the server's `receive` from it."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@on_both_loops
@pytest.mark.parametrize("server", [UVICORN, HYPERCORN], ids=lambda server: server.name)
async def test_starlette_requests_have_the_header(server: Server, listener: Listener) -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        header = get_header(request)
        assert header is not None
        return PlainTextResponse(f"{header.authority} {request.url_for('endpoint')}")

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(ProxyProtocolMiddleware)
    app.add_middleware(Around)
    async with server.running(app, listener):
        assert await asyncio.to_thread(get, listener) == "shop.example https://localhost/"


def test_annotations_can_be_read() -> None:
    assert typing.get_type_hints(ProxyProtocolMiddleware.__init__).keys() == {"app", "return"}
    assert typing.get_type_hints(ProxyProtocolMiddleware.__call__).keys() == {
        "scope",
        "receive",
        "send",
        "return",
    }
