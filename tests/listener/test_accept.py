"""accept() in its three modes, with threads, selectors and socketserver."""

from __future__ import annotations

import contextlib
import errno
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


@pytest.fixture
def default_timeout() -> Iterator[None]:
    """The test may call `socket.setdefaulttimeout`; this undoes it."""
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
    """The acceptor shares the file description. If that became blocking, the acceptor's thread would hang in accept4."""
    for mode in (None, 5.0, 0.0, None):
        listener.settimeout(mode)
        with Peer(listener.getsockname(), V2), Peer(listener.getsockname(), V1):
            for _ in range(2):
                assert wait_readable(listener.fileno())
                sock, address = listener.accept()
                sock.close()
                assert address == CLIENT


def test_a_signal_does_not_end_a_blocking_accept(listener: Listener) -> None:
    """The signal's handler runs while accept() waits. accept() then goes on waiting."""
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
    """No thread sleeps while a connection is ready. A thread that takes one of several leaves the fd readable."""
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
