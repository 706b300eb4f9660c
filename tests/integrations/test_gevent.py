"""gevent's servers on a Listener. Each runs in a process of its own, because gevent patches the standard library."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from integrations.asking import WITH_TLS
from peers import CLIENT, Peer, TlsPeer, make_contexts

TESTS = Path(__file__).parents[1]

HEAD = """
    import sys
    if "patched-first" in sys.argv:
        from gevent import monkey; monkey.patch_all()
    from proxyproto_rs import Listener, get_header
    from proxyproto_rs.gevent import StreamServer, WSGIServer
    from proxyproto_rs.wsgi import ProxyProtocolMiddleware
    if "patched-then" in sys.argv:
        from gevent import monkey; monkey.patch_all()
    import gevent
    import ssl

    listener = Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], max_connections_per_client=1)
    def serve(server):
        server.start()
        print(*listener.getsockname(), flush=True)
        gevent.get_hub().threadpool.apply(sys.stdin.readline)
        listener.drain()
        server.serve_forever()
        assert listener.stats().open == 0
"""

ECHO = """
    def handle(sock, address):
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                header = get_header(sock)
                assert address == sock.getpeername(), (address, sock.getpeername())
                assert listener.stats().open == 1
                sock.sendall(f"{address} {header.authority} ".encode() + line)
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            textwrap.dedent(HEAD) + textwrap.dedent(code),
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address_of(server: subprocess.Popen[str]) -> tuple[str, int]:
    assert server.stdout is not None
    line = server.stdout.readline().split()
    if not line:
        pytest.fail(server.communicate()[1])
    return line[0], int(line[1])


def finish(server: subprocess.Popen[str]) -> str:
    """Let it drain. Return what it printed."""
    _, errors = server.communicate("\n")
    assert server.returncode == 0, errors
    return errors


PATCHED = pytest.mark.parametrize("patched", ["not-patched", "patched-first", "patched-then"])


@PATCHED
def test_a_stream_server_sees_the_client(patched: str) -> None:
    with run(ECHO + "\n    serve(StreamServer(listener, handle))", patched) as server:
        with Peer(address_of(server), WITH_TLS.raw, b"ping\n") as peer:
            peer.end()
            assert peer.receive() == f"{CLIENT} shop.example ping\n".encode()
        assert finish(server) == ""


@PATCHED
def test_a_stream_server_takes_turns(patched: str) -> None:
    """A client that says nothing blocks no other."""
    code = (
        ECHO
        + "\n    listener.update(max_connections_per_client=None)\n    serve(StreamServer(listener, handle))"
    )
    code = code.replace("assert listener.stats().open == 1", "pass")
    with run(code, patched) as server:
        address = address_of(server)
        with Peer(address, WITH_TLS.raw), Peer(address, WITH_TLS.raw, b"ping\n") as peer:
            peer.end()
            assert peer.receive() == f"{CLIENT} shop.example ping\n".encode()
        finish(server)


@PATCHED
def test_tls_begins_behind_the_header(patched: str, tmp_path: Path) -> None:
    _, client_context = make_contexts(tmp_path)
    code = """
    from gevent.ssl import SSLContext
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    serve(StreamServer(listener, handle, ssl_context=context))
    """
    with run(ECHO + code, patched, str(tmp_path / "server.pem")) as server:
        with Peer(address_of(server)) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping\n")
            assert tls.receive() == f"{CLIENT} shop.example ping\n".encode()
        finish(server)


@PATCHED
def test_a_handler_may_begin_tls(patched: str, tmp_path: Path) -> None:
    """Before, the socket named the proxy from then on, and many programs trust a proxy's address."""
    _, client_context = make_contexts(tmp_path)
    code = """
    from gevent.ssl import SSLContext
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    def handle_tls(sock, address):
        handle(context.wrap_socket(sock, server_side=True), address)
    serve(StreamServer(listener, handle_tls))
    """
    with run(ECHO + code, patched, str(tmp_path / "server.pem")) as server:
        with Peer(address_of(server)) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping\n")
            assert tls.receive() == f"{CLIENT} shop.example ping\n".encode()
        assert finish(server) == ""


@PATCHED
@pytest.mark.parametrize("kind", ["ssl", "gevent.ssl"])
def test_start_tls_takes_a_context_of_either_kind(kind: str, patched: str, tmp_path: Path) -> None:
    _, client_context = make_contexts(tmp_path)
    code = """
    import gevent.ssl
    context = {"ssl": ssl, "gevent.ssl": gevent.ssl}[sys.argv[3]].SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    print(*listener.getsockname(), flush=True)
    conn, address = listener.accept()
    tls = conn.start_tls(context)
    assert type(tls).__name__ == "ProxiedSSLSocket"
    assert isinstance(tls, context.sslsocket_class)
    handle(tls, address)
    assert listener.stats().open == 0
    listener.close()
    """
    with run(ECHO + code, patched, str(tmp_path / "server.pem"), kind) as server:
        with Peer(address_of(server)) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping\n")
            assert tls.receive() == f"{CLIENT} shop.example ping\n".encode()
        assert finish(server) == ""


@PATCHED
def test_pywsgi_tells_the_application(patched: str) -> None:
    code = """
    def app(environ, start_response):
        header = environ["proxyproto.header"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']} {header.authority}".encode()]

    serve(WSGIServer(listener, ProxyProtocolMiddleware(app), log=None))
    """
    with run(code, patched) as server:
        with Peer(address_of(server), WITH_TLS.raw, b"GET / HTTP/1.0\r\n\r\n") as peer:
            assert peer.receive().endswith(b"\r\n\r\n192.0.2.1 https shop.example")
        assert finish(server) == ""


def test_without_gevent_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gevent", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.gevent", raising=False)
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.gevent needs gevent: pip install gevent$"):
        __import__("proxyproto_rs.gevent")
