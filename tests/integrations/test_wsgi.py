"""The middleware for WSGI: the environ of each request says what its connection's header says, on every server.

gunicorn has its own tests, and gevent.pywsgi has.
"""

from __future__ import annotations

import contextlib
import logging
import socketserver
import threading
import typing
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import cheroot.wsgi
import pytest
import waitress.server
from cheroot.ssl.builtin import BuiltinSSLAdapter
from waitress import wasyncore

from integrations.asking import WITH_TLS, connection, get
from peers import CLIENT, LOCAL, SERVER, make_contexts
from proxyproto_rs import Header, Listener, get_header
from proxyproto_rs.socketserver import ListenerMixIn
from proxyproto_rs.wsgi import ProxyProtocolMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Running = contextlib.AbstractContextManager[None]


class Application:
    """Keeps the environs it has seen."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


class Request:
    """A request as frameworks make it of an environ."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Wsgiref(ListenerMixIn, socketserver.ThreadingMixIn, WSGIServer):
    pass


@contextlib.contextmanager
def running_wsgiref(app: Any, listener: Listener) -> Iterator[None]:
    server = Wsgiref(listener, QuietHandler)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def running_waitress(app: Any, listener: Listener) -> Iterator[None]:
    sockets: dict[int, Any] = {}
    server: Any = waitress.server.create_server(app, map=sockets, sockets=[listener], threads=2)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.trigger.pull_trigger(lambda: wasyncore.close_all(sockets))
        thread.join()
        server.task_dispatcher.shutdown()


class Cheroot(cheroot.wsgi.Server):
    def __init__(self, listener: Listener, app: Any) -> None:
        super().__init__(listener.getsockname(), app, numthreads=2)
        self.listener = listener

    def bind(self, *_: Any) -> Any:
        self.socket = self.listener
        return self.socket


@contextlib.contextmanager
def running_cheroot(app: Any, listener: Listener, tls: BuiltinSSLAdapter | None = None) -> Iterator[None]:
    server = Cheroot(listener, app)
    server.ssl_adapter = tls
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


SERVERS = {"wsgiref": running_wsgiref, "waitress": running_waitress, "cheroot": running_cheroot}
on_each_server = pytest.mark.parametrize("running", SERVERS.values(), ids=list(SERVERS))


@on_each_server
def test_a_request_is_told_what_the_header_says(running: Callable[..., Running], listener: Listener) -> None:
    app = Application()
    with running(ProxyProtocolMiddleware(app), listener):
        assert get(listener) == "ok"
    (environ,) = app.environs
    assert environ["proxyproto.header"] == get_header(environ) == get_header(Request(environ)) == WITH_TLS
    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("https", CLIENT[0])


def test_cheroots_own_tls_hides_nothing(listener: Listener, tmp_path: Path) -> None:
    _, client_context = make_contexts(tmp_path)
    pem, app = str(tmp_path / "server.pem"), Application()
    with (
        running_cheroot(ProxyProtocolMiddleware(app), listener, BuiltinSSLAdapter(pem, pem)),
        connection(listener, tls=client_context) as proxied,
    ):
        assert proxied.get(Connection="close") == "ok"
    (environ,) = app.environs
    assert (environ["proxyproto.header"], environ["REMOTE_ADDR"]) == (WITH_TLS, CLIENT[0])


@on_each_server
def test_connections_side_by_side_keep_their_own_headers(
    running: Callable[..., Running], listener: Listener
) -> None:
    app = Application()
    clients = [("192.0.2.1", 1001), ("192.0.2.1", 1002), ("192.0.2.2", 1001)]
    with running(ProxyProtocolMiddleware(app), listener), contextlib.ExitStack() as stack:
        for client in clients:
            header = Header.v2(client, SERVER).raw
            assert stack.enter_context(connection(listener, header)).get(Connection="close") == "ok"
    assert [environ["proxyproto.header"].source for environ in app.environs] == clients
    assert {environ["wsgi.url_scheme"] for environ in app.environs} == {"http"}


@on_each_server
def test_a_connection_without_a_header_is_told_nothing(
    running: Callable[..., Running], listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(trusted=["192.0.2.0/24"], untrusted="direct")
    app = Application()
    with running(ProxyProtocolMiddleware(app), listener):
        assert get(listener, b"") == "ok"
    (environ,) = app.environs
    assert (environ["proxyproto.header"], get_header(environ), environ["wsgi.url_scheme"]) == (
        None,
        None,
        "http",
    )
    assert [record for record in caplog.records if record.name == "proxyproto_rs.wsgi"] == []


def test_a_header_that_names_nobody_is_there_too(listener: Listener) -> None:
    app = Application()
    with running_wsgiref(ProxyProtocolMiddleware(app), listener):
        assert get(listener, LOCAL) == "ok"
    assert app.environs[0]["proxyproto.header"] == Header.local()


def test_who_is_served_by_no_listener_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    middleware = ProxyProtocolMiddleware(app)
    given = {"REMOTE_ADDR": "203.0.113.9", "SERVER_SOFTWARE": "a server", "wsgi.url_scheme": "http"}
    for _ in range(2):
        assert middleware(given, lambda *_: None) == [b"ok"]
    assert [environ["proxyproto.header"] for environ in app.environs] == [None, None]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("proxyproto_rs.wsgi", logging.WARNING)
    assert record.getMessage() == (
        "ProxyProtocolMiddleware does not know the connection of 203.0.113.9: no Listener has accepted it, or a server "
        "shows it in no way that is known. Let the server accept from a Listener, and let this middleware be the "
        "outermost. Later requests are not logged."
    )


def test_annotations_can_be_read() -> None:
    assert typing.get_type_hints(ProxyProtocolMiddleware.__init__).keys() == {"app", "return"}
    assert typing.get_type_hints(ProxyProtocolMiddleware.__call__).keys() == {
        "environ",
        "start_response",
        "return",
    }
