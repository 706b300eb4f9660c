"""accept() in its three modes, with threads, selectors and socketserver; and what else a listening socket answers."""

from __future__ import annotations

import contextlib
import errno
import pickle
import selectors
import signal
import socket
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, SERVER, V1, V2, Peer, until, wait_readable
from proxyproto_rs import Listener, ProxiedSocket, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def default_timeout() -> Iterator[None]:
    """`socket.setdefaulttimeout` may be called; it is undone."""
    yield
    socket.setdefaulttimeout(None)


def test_accept_returns_the_client(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2, b"payload") as peer:
        sock, address = listener.accept()
        with sock:
            assert isinstance(sock, ProxiedSocket)
            assert address == sock.getpeername() == CLIENT
            assert sock.getsockname() == SERVER
            assert sock.proxy_peername == peer.sock.getsockname()
            assert sock.recv(100) == b"payload"


def test_a_blocking_accept_waits_for_the_header(listener: Listener) -> None:
    with ThreadPoolExecutor(1) as pool, Peer(listener.getsockname(), V2[:20]) as peer:
        accepted = pool.submit(listener.accept)
        peer.send(V2[20:])
        sock, address = accepted.result()
        sock.close()
    assert address == CLIENT


def test_a_non_blocking_accept_does_not_wait(listener: Listener) -> None:
    listener.setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        listener.accept()
    assert caught.value.errno == errno.EAGAIN
    assert listener.try_accept() is None


def test_accept_times_out(listener: Listener) -> None:
    listener.settimeout(0.01)
    with pytest.raises(TimeoutError, match="timed out"):
        listener.accept()


def test_accept_takes_what_is_there_however_short_the_timeout(listener: Listener) -> None:
    listener.settimeout(1e-9)
    with Peer(listener.getsockname(), V2):
        assert wait_readable(listener.fileno())
        sock, _ = listener.accept()
        sock.close()


@pytest.mark.parametrize(
    ("listener_timeout", "default", "expected"),
    [
        (None, None, None),
        (30.0, None, None),
        (0.0, None, 0.0),
        (None, 7.0, 7.0),
        (0.0, 7.0, 7.0),
        (None, 0.0, 0.0),
    ],
)
def test_the_accepted_socket_blocks_as_the_socket_module_says(
    listener: Listener,
    default_timeout: None,
    listener_timeout: float | None,
    default: float | None,
    expected: float | None,
) -> None:
    listener.settimeout(listener_timeout)
    socket.setdefaulttimeout(default)
    with Peer(listener.getsockname(), V2) as peer:
        assert wait_readable(listener.fileno())
        sock, _ = listener.accept()
        with sock:
            assert sock.gettimeout() == expected
            if expected is None:
                with ThreadPoolExecutor(1) as pool:
                    received = pool.submit(sock.recv, 1)
                    peer.send(b"x")
                    assert received.result() == b"x"
            elif expected == 0.0:
                with pytest.raises(BlockingIOError):
                    sock.recv(1)


def test_a_new_listener_has_the_default_timeout(default_timeout: None) -> None:
    socket.setdefaulttimeout(3.5)
    with Listener("127.0.0.1", 0, trusted=[]) as listener:
        assert listener.gettimeout() == listener.timeout == 3.5


def test_timeouts_are_read_back(listener: Listener) -> None:
    assert (listener.gettimeout(), listener.getblocking()) == (None, True)
    listener.settimeout(2)
    assert (listener.gettimeout(), listener.timeout, listener.getblocking()) == (2.0, 2.0, True)
    listener.setblocking(False)
    assert (listener.gettimeout(), listener.timeout, listener.getblocking()) == (0.0, 0.0, False)
    listener.setblocking(True)
    assert (listener.gettimeout(), listener.getblocking()) == (None, True)


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)], ids=str
)
def test_a_timeout_is_a_time(listener: Listener, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        listener.settimeout(value)
    assert listener.gettimeout() is None


def test_modes_leave_the_shared_file_description_alone(listener: Listener) -> None:
    """The acceptor accepts from the same description; were it blocking, its thread would stop in accept4."""
    for mode in (None, 5.0, 0.0, None):
        listener.settimeout(mode)
        with Peer(listener.getsockname(), V2), Peer(listener.getsockname(), V1):
            for _ in range(2):
                assert wait_readable(listener.fileno())
                sock, address = listener.accept()
                sock.close()
                assert address == CLIENT


def test_a_signal_does_not_end_a_blocking_accept(listener: Listener) -> None:
    """Its handler runs while accept() waits, which goes on after that."""
    ran = threading.Event()
    previous = signal.signal(signal.SIGUSR1, lambda *_: ran.set())
    main = threading.get_ident()

    def interrupt() -> None:
        signal.pthread_kill(main, signal.SIGUSR1)
        ran.wait()
        peer.send(V2[20:])

    try:
        with Peer(listener.getsockname(), V2[:20]) as peer, ThreadPoolExecutor(1) as pool:
            interrupted = pool.submit(interrupt)
            sock, _ = listener.accept()
            sock.close()
            interrupted.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_an_exception_in_a_signal_handler_ends_a_blocking_accept(listener: Listener) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError("enough")

    def kill_when_waiting() -> None:
        until(lambda: listener._wake_fd._waiting == 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_ident()
    try:
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill_when_waiting)
            with pytest.raises(InterruptedError, match="enough"):
                listener.accept()
            killing.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_each_of_many_threads_gets_its_connection(listener: Listener) -> None:
    """No thread sleeps on while a connection is ready: one that takes one of several leaves the fd readable."""
    threads = 8

    def serve() -> bytes:
        sock, _ = listener.accept()
        with sock:
            data = sock.recv(1)
            sock.sendall(data)
        return data

    with ThreadPoolExecutor(threads) as pool, contextlib.ExitStack() as stack:
        serving = [pool.submit(serve) for _ in range(threads)]
        peers = [
            stack.enter_context(Peer(listener.getsockname(), V2, bytes([number])))
            for number in range(threads)
        ]
        assert [peer.receive() for peer in peers] == [bytes([number]) for number in range(threads)]
        assert {future.result() for future in serving} == {bytes([number]) for number in range(threads)}
    assert listener.stats()["v2"] == threads


def test_selectors_tell_of_connections(listener: Listener) -> None:
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        assert selector.select(0) == []
        with Peer(listener.getsockname(), V2), Peer(listener.getsockname(), V2):
            for _ in range(2):
                assert selector.select()
                sock, _ = listener.accept()
                sock.close()
            assert selector.select(0) == []


def test_socketserver_serves(listener: Listener) -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(repr(self.client_address).encode())

    server = socketserver.ThreadingTCPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(server.serve_forever, 0.01)
        with Peer(listener.getsockname(), V2) as peer:
            assert peer.receive() == repr(CLIENT).encode()
        server.shutdown()
        serving.result()
    server.server_close()
    assert listener.fileno() == -1


def test_a_blocking_accept_takes_up_refusals_and_goes_on_waiting() -> None:
    refused: list[Refusal] = []
    told = threading.Event()

    def on_refused(refusal: Refusal) -> None:
        refused.append(refusal)
        told.set()

    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=on_refused) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        accepted = pool.submit(listener.accept)
        with Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n") as stranger:
            assert stranger.sees_the_end()
        told.wait()
        assert not accepted.done()
        with Peer(listener.getsockname(), V2):
            sock, _ = accepted.result()
            sock.close()
    assert [refusal.reason for refusal in refused] == ["missing-header"]


def test_a_non_blocking_accept_takes_up_refusals() -> None:
    refused: list[Refusal] = []
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=refused.append) as listener:
        listener.setblocking(False)
        with Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n"):
            assert wait_readable(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert len(refused) == 1
        assert not wait_readable(listener.fileno(), 0)


def test_a_failing_callback_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def on_refused(refusal: Refusal) -> None:
        raise LookupError(refusal.reason)

    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=on_refused) as listener:
        with Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n"):
            assert wait_readable(listener.fileno())
            assert listener.try_accept() is None
        with Peer(listener.getsockname(), V2):
            sock, _ = listener.accept()
            sock.close()
    assert "LookupError: missing-header" in caplog.text


def test_a_callback_can_be_set_later(listener: Listener) -> None:
    refused: list[Refusal] = []
    assert listener.on_refused is None
    listener.on_refused = refused.append
    with Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n"):
        assert wait_readable(listener.fileno())
        assert listener.try_accept() is None
    assert len(refused) == 1
    assert listener.refusals_dropped == 0


def test_it_answers_as_the_listening_socket_it_is(listener: Listener) -> None:
    assert listener.family == socket.AF_INET
    assert listener.type == socket.SOCK_STREAM
    assert listener.proto == socket.IPPROTO_TCP
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    listener.listen()
    listener.listen(5)
    assert "Listener fd=" in repr(listener)
    assert f"laddr={listener.getsockname()!r}" in repr(listener)


def test_inheritance_is_that_of_the_listening_socket(listener: Listener) -> None:
    assert not listener.get_inheritable()
    listener.set_inheritable(True)
    assert listener.get_inheritable()
    listener.set_inheritable(False)


MEANINGLESS: dict[str, tuple[Any, ...]] = {
    "bind": (("127.0.0.1", 0),),
    "connect": (("127.0.0.1", 1),),
    "connect_ex": (("127.0.0.1", 1),),
    "dup": (),
    "detach": (),
    "share": (1,),
}


@pytest.mark.parametrize("method", MEANINGLESS)
def test_what_cannot_mean_anything_says_so(listener: Listener, method: str) -> None:
    with pytest.raises(TypeError, match="a Listener"):
        getattr(listener, method)(*MEANINGLESS[method])
    assert listener.fileno() >= 0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(listener: Listener, protocol: int) -> None:
    with pytest.raises(TypeError, match=r"cannot.* pickle"):
        pickle.dumps(listener, protocol)


@pytest.mark.parametrize("host", ["", None])
def test_no_host_is_every_address_of_both_families(host: str | None) -> None:
    with Listener(host, 0, trusted=["127.0.0.1", "::1"]) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with Peer((address, port), V2):
                sock, client = listener.accept()
                sock.close()
                assert client == CLIENT


def test_an_ipv6_address_is_of_one_family_unless_told() -> None:
    with Listener("::1", 0, trusted=["::1"]) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    with Listener("::", 0, dualstack=True, trusted=["::1"]) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    with Listener("", 0, dualstack=False, trusted=["::1"]) as listener:
        assert listener.family == socket.AF_INET
    with pytest.raises(ValueError, match="dualstack"):
        Listener("127.0.0.1", 0, dualstack=True)


def test_a_host_name_is_resolved() -> None:
    with Listener("localhost", 0, trusted=["127.0.0.1", "::1"]) as listener, Peer(listener.getsockname(), V2):
        sock, _ = listener.accept()
        sock.close()


def test_ports_are_shared_when_told() -> None:
    with Listener("127.0.0.1", 0, reuse_port=True, trusted=["127.0.0.1"]) as first:
        port = first.getsockname()[1]
        with Listener("127.0.0.1", port, reuse_port=True, trusted=["127.0.0.1"]) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match=str(port)) as caught:
            Listener("127.0.0.1", port, trusted=["127.0.0.1"])
        assert caught.value.errno == errno.EADDRINUSE


BAD_ARGUMENTS: list[tuple[tuple[Any, Any], dict[str, Any], type[Exception], str]] = [
    (("127.0.0.1", "80"), {}, TypeError, "port"),
    (("127.0.0.1", 65536), {}, OverflowError, "65536"),
    (("127.0.0.1", -1), {}, OverflowError, "-1"),
    (("127.0.0.1", 0), {"proxy_protokol": "off"}, TypeError, "proxy_protokol"),
    (("127.0.0.1", 0), {"proxy_protocol": "on"}, ValueError, "proxy_protocol.*'on'"),
    (("127.0.0.1", 0), {"proxy_protocol": "optional"}, ValueError, "trusted"),
    (("127.0.0.1", 0), {"trusted": ["10.0.0.0/33"]}, ValueError, "10.0.0.0/33"),
    (("127.0.0.1", 0), {"trusted": "10.0.0.0/8"}, TypeError, "trusted"),
    (("127.0.0.1", 0), {"max_connections": 0}, ValueError, "max_connections"),
    (("127.0.0.1", 0), {"header_timeout": -1}, ValueError, "header_timeout.*-1"),
]


@pytest.mark.parametrize(("address", "options", "error", "text"), BAD_ARGUMENTS, ids=str)
def test_a_bad_argument_is_named(
    address: tuple[Any, Any], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Listener(*address, **options)


def test_an_unresolvable_host_is_an_os_error() -> None:
    with pytest.raises(socket.gaierror):
        Listener("no such host", 0)


def test_a_unix_listener_believes_its_peers(tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    with Listener.unix(path, mode=0o600) as listener:
        assert listener.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with Peer(str(path), V2, b"payload"):
            sock, address = listener.accept()
            with sock:
                assert address == CLIENT
                assert sock.recv(100) == b"payload"
                assert (sock.family, sock.proxy_sockname) == (socket.AF_UNIX, str(path))
    assert not path.exists()


def test_an_adopted_socket_belongs_to_the_listener() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with Listener.adopt(sock, trusted=["127.0.0.1"]) as listener:
        assert listener.getsockname() == sock.getsockname()
        with Peer(sock.getsockname(), V2):
            conn, address = listener.accept()
            conn.close()
            assert address == CLIENT
    assert sock.fileno() == -1


def test_only_a_listening_stream_socket_is_adopted(listener: Listener) -> None:
    with pytest.raises(TypeError, match="Listener"):
        Listener.adopt(listener)
    with pytest.raises(TypeError, match="int"):
        Listener.adopt(3)  # type: ignore[arg-type]
    with socket.socket() as sock:
        with pytest.raises(OSError, match="listening"):
            Listener.adopt(sock)
        assert sock.fileno() >= 0
