"""TLS on an accepted connection with threads: `start_tls`, and `wrap_socket` of the context, which does the same."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, SERVER, V2, Peer, TlsPeer, make_contexts, wait_readable
from proxyproto_rs import Listener, ProxiedSocket, ProxiedSSLSocket, get_header
from served import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
    Way = Callable[..., Any]


def by_start_tls(conn: ProxiedSocket, context: ssl.SSLContext, **options: Any) -> Any:
    return conn.start_tls(context, **options)


def by_wrap_socket(conn: ProxiedSocket, context: ssl.SSLContext, **options: Any) -> Any:
    return context.wrap_socket(conn, server_side=True, **options)


EITHER_WAY = pytest.mark.parametrize("way", [by_start_tls, by_wrap_socket], ids=["start_tls", "wrap_socket"])


class Pair:
    """Both ends of a connection behind a header, and the `ProxiedSocket` that one of them was made of."""

    def __init__(self, plain: ProxiedSocket, tls: Any, client: ssl.SSLSocket) -> None:
        self.plain, self.tls, self.client = plain, tls, client


@contextlib.contextmanager
def connected(listener: Listener, contexts: Contexts, way: Way = by_start_tls) -> Iterator[Pair]:
    server_context, client_context = contexts
    with ThreadPoolExecutor(1) as pool, Peer(listener.getsockname(), V2) as peer:
        plain, _ = listener.accept()
        connecting = pool.submit(client_context.wrap_socket, peer.sock, server_hostname="localhost")
        pair = Pair(plain, way(plain, server_context), connecting.result())
        with pair.client:
            yield pair


@EITHER_WAY
def test_the_ends_are_those_of_the_header(listener: Listener, tls_contexts: Contexts, way: Way) -> None:
    """`wrap_socket` used to name the proxy, which is a peer that many programs trust."""
    with connected(listener, tls_contexts, way) as pair, pair.tls as tls:
        assert type(tls) is ProxiedSSLSocket
        assert tls.getpeername() == CLIENT
        assert tls.getsockname() == SERVER
        assert tls.proxy_peername == pair.client.getsockname()
        assert tls.proxy_sockname == pair.client.getpeername()
        assert tls.header == get_header(tls) == HEADER
        assert f"raddr={CLIENT!r}" in repr(tls)
        pair.client.sendall(b"ping")
        assert tls.recv(100) == b"ping"
        tls.sendall(b"pong")
        assert pair.client.recv(100) == b"pong"


@EITHER_WAY
def test_tls_may_begin_in_the_segment_of_the_header(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    server_context, client_context = tls_contexts

    def talk() -> bytes:
        with Peer(listener.getsockname()) as peer:
            return TlsPeer(peer, client_context, before=V2).receive()

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(talk)
        with way(listener.accept()[0], server_context) as tls:
            tls.sendall(b"hello")
            assert talking.result() == b"hello"


@EITHER_WAY
def test_the_socket_it_was_made_of_is_closed_and_has_no_place(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    with connected(listener, tls_contexts, way) as pair, pair.tls:
        assert pair.plain.fileno() == -1
        assert pair.plain.header is pair.tls.header
        pair.plain.close()
        assert listener.stats().open == 1
    assert listener.stats().open == 0


@EITHER_WAY
def test_a_client_has_its_place_as_long_as_tls_is_open(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    listener.update(max_connections_per_client=1)
    with connected(listener, tls_contexts, way) as pair, pair.tls:
        with Peer(listener.getsockname(), V2) as second:
            assert second.sees_the_end()
        assert listener.stats()["too-many-from-client"] == 1
    with connected(listener, tls_contexts, way) as pair, pair.tls:
        pass


def end_by_close(pair: Pair) -> None:
    pair.tls.close()
    pair.tls.close()
    pair.plain.close()


def end_by_makefile(pair: Pair, listener: Listener) -> None:
    file = pair.tls.makefile("rb")
    pair.tls.close()
    assert listener.stats().open == 2
    file.close()


def end_by_unwrap(pair: Pair, listener: Listener) -> None:
    with ThreadPoolExecutor(1) as pool:
        unwrapping = pool.submit(pair.client.unwrap)
        plain = pair.tls.unwrap()
        with unwrapping.result() as client:
            client.sendall(b"in the clear")
            assert plain.recv(100) == b"in the clear"
    assert plain.getpeername() == CLIENT
    assert listener.stats().open == 2
    plain.close()


def end_by_detach(pair: Pair) -> None:
    os.close(pair.tls.detach())


def end_by_detach_with_place(pair: Pair, listener: Listener) -> None:
    os.close(pair.tls.detach(keep_place=True))
    assert listener.stats().open == 2
    pair.tls.close()


def end_by_collection(pair: Pair) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair.tls = None
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]


ENDS = [
    end_by_close,
    end_by_makefile,
    end_by_unwrap,
    end_by_detach,
    end_by_detach_with_place,
    end_by_collection,
]


@EITHER_WAY
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.removeprefix("end_by_"))
def test_a_place_is_given_back_exactly_once(
    listener: Listener, tls_contexts: Contexts, way: Way, end: Callable[..., None]
) -> None:
    needed = [listener] if end.__code__.co_argcount == 2 else []
    with connected(listener, tls_contexts, way) as other, other.tls:
        with connected(listener, tls_contexts, way) as pair:
            assert listener.stats().open == 2
            end(pair, *needed)
            assert listener.stats().open == 1
        assert listener.stats().open == 1


@EITHER_WAY
def test_a_duplicate_of_the_plain_socket_has_a_share_of_the_place(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    copies: list[ProxiedSocket] = []

    def copy_first(conn: ProxiedSocket, context: ssl.SSLContext) -> Any:
        copies.append(conn.dup())
        return way(conn, context)

    with connected(listener, tls_contexts, copy_first) as pair:
        pair.tls.close()
        assert listener.stats().open == 1
        copies[0].close()
        assert listener.stats().open == 0


def send_plain_text(peer: Peer) -> None:
    peer.send(b"GET / HTTP/1.1\r\n\r\n")


def end_before_tls(peer: Peer) -> None:
    peer.end()


def end_within_a_record(peer: Peer) -> None:
    peer.send(b"\x16\x03\x01\x02\x00\x01")
    peer.end()


def say_nothing(_: Peer) -> None:
    pass


FAILURES: list[tuple[Callable[[Peer], None], type[OSError]]] = [
    (send_plain_text, ssl.SSLError),
    (end_before_tls, OSError),
    (end_within_a_record, OSError),
    (Peer.reset, ConnectionError),
    (say_nothing, TimeoutError),
]


@EITHER_WAY
@pytest.mark.parametrize(("fail", "error"), FAILURES, ids=[fail.__name__ for fail, _ in FAILURES])
def test_a_handshake_that_fails_leaves_no_fd_and_no_place(
    listener: Listener, tls_contexts: Contexts, way: Way, fail: Callable[[Peer], None], error: type[OSError]
) -> None:
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        fd = conn.fileno()
        conn.settimeout(0.01 if fail is say_nothing else 30)
        fail(peer)
        if fail is not say_nothing:
            assert wait_readable(fd)
        with pytest.raises(error):
            way(conn, tls_contexts[0])
        assert conn.fileno() == -1
        assert listener.stats().open == 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@EITHER_WAY
def test_a_peer_that_has_gone_is_never_served_in_the_clear(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    """The kernel does not know such a peer's name, so `wrap_socket` would take the socket for one that is yet to connect."""
    with Peer(listener.getsockname(), V2, b"secret?") as peer:
        conn, _ = listener.accept()
        peer.reset()
        assert wait_readable(conn.fileno())
        with way(conn, tls_contexts[0], do_handshake_on_connect=False) as tls:
            with pytest.raises(OSError):
                tls.recv(100)
            with pytest.raises(OSError):
                tls.sendall(b"secret!")
        assert listener.stats().open == 0


def test_arguments_that_do_not_fit_change_nothing(listener: Listener, tls_contexts: Contexts) -> None:
    with Peer(listener.getsockname(), V2, b"still here") as peer:
        conn, _ = listener.accept()
        with conn:
            with pytest.raises(ValueError, match="server_hostname can only be specified in client mode"):
                conn.start_tls(tls_contexts[0], server_hostname="localhost")
            with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
                conn.start_tls(tls_contexts[1], server_side=False)
            assert listener.stats().open == 1
            assert conn.recv(100) == b"still here"
            assert conn.getpeername() == CLIENT
        assert peer.sees_the_end()


@EITHER_WAY
def test_a_non_blocking_socket_makes_its_handshake_step_by_step(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    server_context, client_context = tls_contexts
    with ThreadPoolExecutor(1) as pool, Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        conn.setblocking(False)
        with way(conn, server_context, do_handshake_on_connect=False) as tls:
            assert not tls.getblocking()
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            connecting = pool.submit(client_context.wrap_socket, peer.sock, server_hostname="localhost")
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    select.select([tls], [], [])
            with connecting.result() as client:
                with pytest.raises(ssl.SSLWantReadError):
                    tls.recv(1)
                tls.sendall(b"x")
                assert client.recv(1) == b"x"


@EITHER_WAY
def test_a_non_blocking_socket_cannot_make_its_handshake_at_once(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        conn.setblocking(False)
        with pytest.raises(ValueError, match="do_handshake_on_connect should not be specified"):
            way(conn, tls_contexts[0])
        assert peer.sees_the_end()
    assert listener.stats().open == 0


@EITHER_WAY
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_the_timeout_stays(
    listener: Listener, tls_contexts: Contexts, way: Way, timeout: float | None
) -> None:
    def with_timeout(conn: ProxiedSocket, context: ssl.SSLContext) -> Any:
        conn.settimeout(timeout)
        return way(conn, context)

    with connected(listener, tls_contexts, with_timeout) as pair, pair.tls as tls:
        assert tls.gettimeout() == timeout


@EITHER_WAY
def test_the_client_certificate_is_visible(listener: Listener, tmp_path: Path, way: Way) -> None:
    server_context, client_context = make_contexts(tmp_path)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(tmp_path / "server.pem")
    client_context.load_cert_chain(tmp_path / "server.pem")
    with connected(listener, (server_context, client_context), way) as pair, pair.tls as tls:
        pair.client.sendall(b"x")  # TLS 1.3: the client's certificate comes behind its side of the handshake
        assert tls.recv(1) == b"x"
        assert tls.getpeercert()["subject"] == ((("commonName", "localhost"),),)


@EITHER_WAY
def test_a_server_of_threads_waits_for_no_silent_client(
    listener: Listener, tls_contexts: Contexts, way: Way
) -> None:
    server_context, client_context = tls_contexts

    def serve() -> None:
        conn, _ = listener.accept()
        with way(conn, server_context) as tls, tls.makefile("rb") as lines:
            for line in lines:
                tls.sendall(f"{tls.getpeername()[0]} ".encode() + line)

    def ask() -> bytes:
        with (
            Peer(listener.getsockname(), V2) as peer,
            client_context.wrap_socket(peer.sock, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"ping\n")
            return tls.recv(100)

    with ThreadPoolExecutor(10) as pool:
        with Peer(listener.getsockname(), V2) as silent:
            serving = [pool.submit(serve) for _ in range(5)]
            answers = [pool.submit(ask) for _ in range(4)]
            assert [answer.result() for answer in answers] == [b"192.0.2.1 ping\n"] * 4
            assert listener.stats().open >= 1
            silent.end()
        failures = [type(error) for served in serving if (error := served.exception())]
    assert len(failures) == 1
    assert issubclass(failures[0], OSError)
    assert listener.stats().open == 0


class InterruptedSSLSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        raise KeyboardInterrupt


@EITHER_WAY
def test_an_interrupted_handshake_leaves_no_fd_and_no_place(
    listener: Listener, tmp_path: Path, way: Way
) -> None:
    server_context, _ = make_contexts(tmp_path)
    server_context.sslsocket_class = InterruptedSSLSocket
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        with warnings.catch_warnings(record=True):  # until 3.12 Python leaves the socket to the collector
            warnings.simplefilter("always")
            with contextlib.suppress(KeyboardInterrupt):
                way(conn, server_context)
            gc.collect()
        assert listener.stats().open == 0
        assert peer.sees_the_end()


class OtherSSLSocket(ssl.SSLSocket):
    """A kind of socket that a program gives its context."""


def test_the_kind_of_socket_is_that_of_the_context(listener: Listener, tmp_path: Path) -> None:
    contexts = make_contexts(tmp_path)
    contexts[0].sslsocket_class = OtherSSLSocket
    with connected(listener, contexts, by_wrap_socket) as pair, pair.tls as tls:
        assert isinstance(tls, OtherSSLSocket)
        assert isinstance(tls, ProxiedSSLSocket)
        assert tls.getpeername() == CLIENT
    contexts[0].sslsocket_class = ProxiedSSLSocket
    with connected(listener, contexts, by_wrap_socket) as pair, pair.tls as tls:
        assert type(tls) is ProxiedSSLSocket


class Stranger(ssl.SSLSocket):
    """Takes the fd in a way that nobody knows."""

    @classmethod
    def _create(cls, sock: socket.socket, **_: Any) -> Any:
        return socket.socket(fileno=sock.detach())


def test_a_context_whose_sockets_cannot_know_the_client_is_refused(
    listener: Listener, tmp_path: Path
) -> None:
    server_context, _ = make_contexts(tmp_path)
    server_context.sslsocket_class = Stranger
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        with pytest.raises(TypeError, match="made a socket that takes the proxy for its peer"):
            conn.start_tls(server_context)
        assert peer.sees_the_end()
    assert listener.stats().open == 0


def test_a_module_ssl_that_takes_the_fd_in_another_way_is_refused(listener: Listener) -> None:
    """Whatever a later Python does, it must not serve the client as if it were the proxy."""
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        fd = conn.fileno()
        with pytest.raises(
            TypeError, match=r"^ssl\.SSLSocket of this version would take the proxy for its peer$"
        ):
            eval("conn.detach()", {**vars(ssl), "conn": conn})
        os.close(fd)  # a TLS socket would do that when it is collected
        conn.close()
        assert peer.sees_the_end()
    assert listener.stats().open == 0


def test_another_caller_that_knows_the_class_may_detach(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2) as peer:
        conn, _ = listener.accept()
        os.close(eval("conn.detach()", {"SSLSocket": ssl.SSLSocket, "conn": conn}))
        assert peer.sees_the_end()
    assert listener.stats().open == 0


def test_get_header_finds_it_in_what_holds_it(listener: Listener, tls_contexts: Contexts) -> None:
    class Holder:
        def __init__(self, name: str, held: object) -> None:
            vars(self)[name] = held

    with connected(listener, tls_contexts) as pair, pair.tls as tls:
        for name in ("connection", "request", "socket", "transport"):
            assert get_header(Holder(name, tls)) == HEADER
