"""The mixin that puts a Listener under socketserver, http.server and wsgiref."""

from __future__ import annotations

import contextlib
import logging
import os
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest

from integrations.asking import WITH_TLS, connection, get
from peers import CLIENT, LOCAL, V2, Peer, TlsPeer, until, wait_readable
from proxyproto_rs import Listener, get_header
from proxyproto_rs.socketserver import ListenerMixIn

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with the client's address, the header and the line."""

    def handle(self) -> None:
        for line in self.rfile:
            self.answer(line)

    def answer(self, line: bytes) -> None:
        header = get_header(self)
        assert header is not None
        assert header == get_header(self.request)
        assert self.client_address == self.request.getpeername()
        self.wfile.write(f"{self.client_address} {header.authority} ".encode() + line)


class Once(Echo):
    """Answers one line."""

    def handle(self) -> None:
        self.answer(self.rfile.readline())


class ThreadingServer(ListenerMixIn, socketserver.ThreadingTCPServer):
    pass


class ForkingServer(ListenerMixIn, socketserver.ForkingTCPServer):
    pass


class PlainServer(ListenerMixIn, socketserver.TCPServer):
    pass


@contextlib.contextmanager
def running(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


EVERY_KIND = pytest.mark.parametrize("kind", [PlainServer, ThreadingServer, ForkingServer])


@EVERY_KIND
def test_handlers_see_the_client(kind: type[Any], listener: Listener) -> None:
    address = listener.getsockname()
    with running(kind(listener, Echo)), Peer(address, WITH_TLS.raw, b"ping\n") as peer:
        peer.end()
        assert peer.receive() == f"{CLIENT} shop.example ping\n".encode()
    assert listener.fileno() == -1
    assert listener.stats().open == 0


def test_a_unix_listener_is_served(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(ThreadingServer(Listener.unix(path), Echo)), Peer(path, WITH_TLS.raw, b"ping\n") as peer:
        peer.end()
        assert peer.receive() == f"{CLIENT} shop.example ping\n".encode()


def test_a_server_whose_port_refuses_everybody_goes_on(listener: Listener) -> None:
    address = listener.getsockname()
    with running(PlainServer(listener, Echo)):
        with Peer(address, b"GET / HTTP/1.0\r\n") as stranger:
            assert stranger.sees_the_end()
        with Peer(address, WITH_TLS.raw, b"ping\n") as peer:
            peer.end()
            assert peer.receive().endswith(b"ping\n")


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        header = get_header(self.connection)
        assert header is not None
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.client_address[0]} {header.authority}".encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("base", [HTTPServer, ThreadingHTTPServer])
def test_http_server(base: type[Any], listener: Listener) -> None:
    class Server(ListenerMixIn, base):  # type: ignore[misc] # a type that is not known before it runs
        pass

    server = Server(listener, Hello)
    assert (server.server_name, server.server_port) == listener.getsockname()
    with running(server):
        assert get(listener) == "192.0.2.1 shop.example"


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class WebServer(ListenerMixIn, socketserver.ThreadingMixIn, WSGIServer):
    pass


def test_wsgiref(listener: Listener) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['REMOTE_ADDR']} {environ['SERVER_PORT']}".encode()]

    server = WebServer(listener, QuietHandler)
    server.set_app(app)
    _, port = listener.getsockname()
    with running(server):
        assert get(listener) == f"192.0.2.1 {port}"


@pytest.mark.parametrize("base", [HTTPServer, ThreadingHTTPServer])
def test_http_server_with_tls(base: type[Any], listener: Listener, tls_contexts: Contexts) -> None:
    class Server(ListenerMixIn, base):  # type: ignore[misc] # a type that is not known before it runs
        pass

    server_context, client_context = tls_contexts
    with (
        running(Server(listener, Hello, ssl=server_context)),
        connection(listener, WITH_TLS.raw, client_context) as proxied,
    ):
        assert proxied.get() == "192.0.2.1 shop.example"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_wsgiref_tells_whether_there_is_tls(scheme: str, listener: Listener, tls_contexts: Contexts) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']} {environ.get('HTTPS')}".encode()]

    server_context, client_context = tls_contexts if scheme == "https" else (None, None)
    server = WebServer(listener, QuietHandler, ssl=server_context)
    server.set_app(app)
    with running(server), connection(listener, V2, client_context) as proxied:
        assert proxied.get() == f"192.0.2.1 {scheme} {'on' if scheme == 'https' else None}"


@EVERY_KIND
def test_tls_begins_and_ends_behind_the_header(
    kind: type[Any], listener: Listener, tls_contexts: Contexts, capfd: pytest.CaptureFixture[str]
) -> None:
    listener.update(max_connections_per_client=1)
    server_context, client_context = tls_contexts
    address = listener.getsockname()
    with running(kind(listener, Once, ssl=server_context)):
        with Peer(address) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            assert listener.stats().open == 1
            if kind is not PlainServer:
                with Peer(address, V2) as second:
                    assert second.sees_the_end()
                assert listener.stats()["too-many-from-client"] == 1
            tls.send(b"ping\n")
            assert tls.receive() == f"{CLIENT} shop.example ping\n".encode()
            assert tls.receive() == b"", "the end comes as TLS tells it"
        until(lambda: listener.stats().open == 0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [ThreadingServer, ForkingServer])
def test_a_slow_handshake_holds_up_nobody(
    kind: type[Any], listener: Listener, tls_contexts: Contexts
) -> None:
    server_context, client_context = tls_contexts
    address = listener.getsockname()
    with running(kind(listener, Echo, ssl=server_context)):
        with Peer(address, V2) as slow, Peer(address) as peer:
            until(lambda: listener.stats().open == 1)
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping\n")
            assert tls.receive() == f"{CLIENT} shop.example ping\n".encode()
            slow.end()
            peer.end()
        until(lambda: listener.stats().open == 0)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.0\r\n\r\n"], ids=["silent", "plain text"])
def test_a_handshake_that_fails_is_told_in_debug_mode_only(
    first: bytes,
    listener: Listener,
    tls_contexts: Contexts,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "proxyproto_rs.socketserver")
    server = ThreadingServer(listener, Echo, ssl=tls_contexts[0], ssl_handshake_timeout=30 if first else 0.01)
    with running(server), Peer(listener.getsockname(), V2, first) as peer:
        peer.receive()
        until(lambda: listener.stats().open == 0)
    assert capfd.readouterr().err == ""
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"{CLIENT}: the TLS handshake failed: ")


class Fails(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        raise LookupError("the handler is to blame")


@EVERY_KIND
def test_a_handler_that_fails_ends_tls(
    kind: type[Any], listener: Listener, tls_contexts: Contexts, capfd: pytest.CaptureFixture[str]
) -> None:
    server_context, client_context = tls_contexts
    with running(kind(listener, Fails, ssl=server_context)), Peer(listener.getsockname()) as peer:
        assert TlsPeer(peer, client_context, before=V2).receive() == b""
        until(lambda: listener.stats().open == 0)
    assert "the handler is to blame" in capfd.readouterr().err


class Waits(socketserver.BaseRequestHandler):
    """Says who it is, and serves until the client ends."""

    def handle(self) -> None:
        self.request.sendall(b"%d\n" % os.getpid())
        while self.request.recv(100):
            pass


def test_a_client_keeps_its_place_while_a_child_serves_it(listener: Listener) -> None:
    """Fails with the bare ForkingTCPServer: the parent closes its copy, and that gives the place back."""
    listener.update(max_connections_per_client=1)
    address = listener.getsockname()
    with running(ForkingServer(listener, Waits)):
        with Peer(address, V2) as peer:
            assert peer.sock.recv(100) != b"%d\n" % os.getpid()
            assert listener.stats().open == 1
            with Peer(address, V2) as second:
                assert second.sees_the_end()
            assert listener.stats()["too-many-from-client"] == 1
            peer.end()  # the child has inherited this end too
        until(lambda: listener.stats().open == 0)
        with Peer(address, V2) as peer:
            assert peer.sock.recv(100)
            peer.end()


def test_a_place_is_given_back_where_no_child_can_be_made(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fail)
    with running(ForkingServer(listener, Waits)), Peer(listener.getsockname(), V2) as peer:
        assert peer.sees_the_end()
        until(lambda: listener.stats().open == 0)
    assert "no more processes" in capfd.readouterr().err


class Reads(socketserver.BaseRequestHandler):
    """Reads when the peer has reset the connection."""

    def handle(self) -> None:
        wait_readable(self.request.fileno())
        self.request.recv(1)


@pytest.mark.parametrize(("header", "is_told"), [(LOCAL, False), (V2, True)], ids=["check", "client"])
def test_a_health_check_that_goes_makes_no_noise(
    header: bytes, is_told: bool, listener: Listener, capfd: pytest.CaptureFixture[str]
) -> None:
    server = PlainServer(listener, Reads)
    with Peer(listener.getsockname(), header) as peer:
        request, client_address = _next_request(server)
        peer.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    try:
        server.process_request(request, client_address)
    except ConnectionResetError:
        server.handle_error(request, client_address)
        server.shutdown_request(request)
    server.server_close()
    assert ("ConnectionResetError" in capfd.readouterr().err) == is_told


def _next_request(server: PlainServer) -> tuple[Any, Any]:
    while True:
        wait_readable(server.fileno())
        with contextlib.suppress(BlockingIOError):
            return server.get_request()
