"""Web frameworks on a Listener: requests and WebSockets tell the client's address, with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integrations.asking import connection
from peers import make_contexts, turn_until
from proxyproto_rs import Listener, get_header
from proxyproto_rs.asgi import ProxyProtocolMiddleware

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

Serving = contextlib.AbstractAsyncContextManager[None]


class Certificate(NamedTuple):
    path: Path
    server: ssl.SSLContext
    client: ssl.SSLContext


def answer(host: str | None, request: Any) -> str:
    header = get_header(request)
    return f"{host} {header and header.authority}"


ANSWER = "192.0.2.1 shop.example"


def make_fastapi() -> Any:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    # FastAPI reads the annotations, and the names in them are not in this module.
    async def who(request: Any) -> Any:
        return fastapi.responses.PlainTextResponse(answer(request.client.host, request))

    async def talk(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.send_text(answer(websocket.client.host, websocket))
        await websocket.receive()  # the client's end

    who.__annotations__ = {"request": fastapi.Request}
    talk.__annotations__ = {"websocket": fastapi.WebSocket}
    app.get("/")(who)
    app.websocket("/")(talk)
    return app


def make_quart() -> Any:
    quart = pytest.importorskip("quart")
    app = quart.Quart("test")

    @app.get("/")  # type: ignore[untyped-decorator]
    async def who() -> str:
        return answer(quart.request.remote_addr, quart.request)

    @app.websocket("/")  # type: ignore[untyped-decorator]
    async def talk() -> None:
        await quart.websocket.receive()
        await quart.websocket.send(answer(quart.websocket.remote_addr, quart.websocket))
        await quart.websocket.receive()  # the client's end, which cancels this

    return app


def on_uvicorn(make_app: Callable[[], Any]) -> Callable[..., Serving]:
    @contextlib.asynccontextmanager
    async def serving(listener: Listener, certificate: Certificate | None) -> AsyncIterator[None]:
        from proxyproto_rs.uvicorn import Config, Server

        tls: Any = {"ssl_certfile": certificate.path} if certificate else {}
        server = Server(Config(make_app(), log_config=None, ws="websockets-sansio", **tls))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await turn_until(lambda: server.started)
            yield
        finally:
            server.should_exit = True
            await task

    return serving


def on_hypercorn(make_app: Callable[[], Any]) -> Callable[..., Serving]:
    @contextlib.asynccontextmanager
    async def serving(listener: Listener, certificate: Certificate | None) -> AsyncIterator[None]:
        from hypercorn.app_wrappers import ASGIWrapper
        from hypercorn.asyncio.run import worker_serve
        from hypercorn.config import Config, Sockets

        config, stop = Config(), asyncio.Event()
        config.errorlog = None
        if certificate:
            config.certfile = config.keyfile = str(certificate.path)
        sockets = Sockets([listener], [], []) if certificate else Sockets([], [listener], [])
        middleware: Any = ProxyProtocolMiddleware(make_app())
        app = ASGIWrapper(middleware)
        task = asyncio.create_task(worker_serve(app, config, sockets=sockets, shutdown_trigger=stop.wait))
        try:
            yield
        finally:
            stop.set()
            await task

    return serving


_sanic_names = (f"test-{number}" for number in itertools.count())


@contextlib.asynccontextmanager
async def serving_sanic(listener: Listener, certificate: Certificate | None) -> AsyncIterator[None]:
    sanic = pytest.importorskip("sanic")
    sanic.Sanic.test_mode = True  # lets a process have several applications
    app = sanic.Sanic(next(_sanic_names), configure_logging=False)

    async def who(request: Any) -> Any:
        return sanic.text(answer(request.ip, request))

    async def talk(request: Any, websocket: Any) -> None:
        await websocket.recv()
        await websocket.send(answer(request.ip, request))

    app.add_route(who, "/")
    app.add_websocket_route(talk, "/ws")
    server: Any = await app.create_server(sock=listener, ssl=certificate and certificate.server)
    await server.startup()
    await server.start_serving()
    try:
        yield
    finally:
        await server.close()
        app.shutdown_tasks(0)


@contextlib.asynccontextmanager
async def serving_tornado(listener: Listener, certificate: Certificate | None) -> AsyncIterator[None]:
    import tornado.httpserver
    import tornado.web
    import tornado.websocket

    class Who(tornado.web.RequestHandler):
        def get(self) -> None:
            self.write(answer(self.request.remote_ip, self.request))

    class Talk(tornado.websocket.WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(answer(self.request.remote_ip, self))

    app = tornado.web.Application([("/", Who), ("/ws", Talk)])
    server = tornado.httpserver.HTTPServer(app, ssl_options=certificate and certificate.server)
    listener.setblocking(False)
    server.add_socket(listener)
    try:
        yield
    finally:
        server.stop()
        await server.close_all_connections()


@contextlib.asynccontextmanager
async def serving_aiohttp(listener: Listener, certificate: Certificate | None) -> AsyncIterator[None]:
    """`run_app` runs a loop of its own."""
    from aiohttp import web

    async def who(request: web.Request) -> web.StreamResponse:
        text = answer(request.remote, request)
        if request.headers.get("Upgrade") != "websocket":
            return web.Response(text=text)
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        await websocket.receive()
        await websocket.send_str(text)
        return websocket

    def stop() -> None:
        raise web.GracefulExit

    app = web.Application()
    app.router.add_get("/", who)
    loop = type(asyncio.get_running_loop())()
    run = {"sock": listener, "ssl_context": certificate and certificate.server, "loop": loop}
    thread = threading.Thread(
        target=lambda: web.run_app(app, **run, handle_signals=False, print=None)  # type: ignore[arg-type]
    )
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop)
        thread.join()


class Framework(NamedTuple):
    name: str
    serving: Callable[..., Serving]
    websocket: str = "/"
    """The path of its WebSocket."""


FRAMEWORKS = [
    Framework("fastapi-uvicorn", on_uvicorn(make_fastapi)),
    Framework("fastapi-hypercorn", on_hypercorn(make_fastapi)),
    Framework("quart-uvicorn", on_uvicorn(make_quart)),
    Framework("quart-hypercorn", on_hypercorn(make_quart)),
    Framework("sanic", serving_sanic, "/ws"),
    Framework("tornado", serving_tornado, "/ws"),
    Framework("aiohttp", serving_aiohttp),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    directory = tmp_path_factory.mktemp("tls")
    return Certificate(directory / "server.pem", *make_contexts(directory))


@pytest.mark.asyncio(loop_factories=["asyncio", "proxyproto_rs.uvloop"])
@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.name)
@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
async def test_the_client_is_seen(
    framework: Framework, has_tls: bool, listener: Listener, certificate: Certificate
) -> None:

    def ask() -> None:
        tls = certificate.client if has_tls else None
        with connection(listener, tls=tls) as proxied:
            assert proxied.get() == ANSWER
        with connection(listener, tls=tls) as proxied:
            assert proxied.ask_websocket(framework.websocket) == ANSWER

    async with framework.serving(listener, certificate if has_tls else None):
        await asyncio.to_thread(ask)
