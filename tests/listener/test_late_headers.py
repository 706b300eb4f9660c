"""Headers that come in pieces, slowly, late or never: each split, the deadline, and whom `max_pending` closes (R5, R2)."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from peers import CLIENT, LOCAL, SERVER, SIGNATURE, V1, V2, Peer, next_refusal, until, wait_readable
from proxyproto_rs import Listener, Refusal


@pytest.fixture
def listener() -> Listener:
    """A Listener that sees the first piece as soon as it comes: the kernel holds no silent connection back."""
    return Listener("127.0.0.1", 0, trusted=["127.0.0.1"], defer_accept=False)


@pytest.mark.parametrize("data", [V1, V2], ids=["v1", "v2"])
def test_each_split_of_a_header(listener: Listener, data: bytes) -> None:
    """Send the rest once the first part has been seen. Each connection is accepted with its whole payload."""
    with listener, contextlib.ExitStack() as stack:
        for split in range(1, len(data)):
            peer = stack.enter_context(Peer(listener.getsockname(), data[:split]))
            until(lambda: listener.stats().pending == 1)
            assert listener.try_accept() is None
            peer.send(data[split:] + b"payload")
            sock, address = listener.accept()
            with sock:
                assert (address, sock.getsockname()) == (CLIENT, SERVER)
                assert sock.recv(100) == b"payload"
        assert listener.stats().accepted == len(data) - 1


@pytest.mark.parametrize("data", [V1, V2, LOCAL], ids=["v1", "v2", "local"])
def test_a_header_that_drips(listener: Listener, data: bytes) -> None:
    with listener, Peer(listener.getsockname()) as peer:
        until(lambda: listener.stats().pending == 1)
        for byte in data:
            assert listener.try_accept() is None
            peer.send(bytes([byte]))
        sock, _ = listener.accept()
        sock.close()
        assert sock.header is not None
        assert sock.header.raw == data


def test_the_deadline_is_total_however_a_header_drips() -> None:
    """A byte now and then must not extend the deadline. Otherwise a peer could keep its place for ever."""
    refusals: list[Refusal] = []
    with Listener(
        "127.0.0.1", 0, trusted=["127.0.0.1"], header_timeout=0.2, on_refused=refusals.append
    ) as listener:
        with Peer(listener.getsockname(), SIGNATURE + b"\x21\x11\x0f\x00") as peer:
            # At this pace the announced 3840 bytes would take half a minute. So the deadline ends it.
            with contextlib.suppress(ConnectionError):
                while not wait_readable(peer.sock.fileno(), 0.01):
                    peer.send(b"\0")
            assert peer.sees_the_end()
        assert next_refusal(listener, refusals).reason == "timeout"


def test_a_shorter_timeout_holds_for_those_who_wait(listener: Listener) -> None:
    with listener, Peer(listener.getsockname(), V2[:20]) as peer:
        until(lambda: listener.stats().pending == 1)
        listener.update(header_timeout=0.01)
        assert peer.sees_the_end()
        assert listener.stats()["timeout"] == 1


def test_the_silent_do_not_hold_up_the_others(listener: Listener) -> None:
    with listener, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Peer(listener.getsockname()))
        until(lambda: listener.stats().pending == 100)
        with Peer(listener.getsockname(), V2):
            listener.accept()[0].close()
        assert listener.stats().pending == 100


def test_the_longest_waiting_go_so_that_fresh_ones_get_in() -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], max_pending=5, defer_accept=False) as listener:
        with contextlib.ExitStack() as stack:
            peers = []
            for number in range(8):
                peers.append(stack.enter_context(Peer(listener.getsockname(), V2[:20])))
                until(lambda: listener.stats().pending + listener.stats()["pending-overflow"] > number)  # noqa: B023
            assert listener.stats().pending == 5
            for peer in peers[:3]:
                assert peer.sees_the_end()
            for peer in peers[3:]:
                peer.send(V2[20:])
                listener.accept()[0].close()
        assert listener.stats()["pending-overflow"] == 3


@pytest.mark.parametrize("ending", ["end", "reset"])
def test_a_header_that_is_broken_off(ending: str) -> None:
    """R30: it is no header, and the Listener notices at once."""
    refusals: list[Refusal] = []
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=refusals.append) as listener:
        with Peer(listener.getsockname(), V1[:20]) as peer:
            until(lambda: listener.stats().pending == 1)
            getattr(peer, ending)()
            assert next_refusal(listener, refusals).reason == "closed-early"
        until(lambda: listener.stats().pending == 0)


def test_a_peer_that_closes_behind_its_header_is_served(listener: Listener) -> None:
    """A client may send everything and then shut down its sending side."""
    with listener, Peer(listener.getsockname(), V2[:20]) as peer:
        until(lambda: listener.stats().pending == 1)
        peer.send(V2[20:] + b"all I have to say")
        peer.end()
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100) == b"all I have to say"
            assert sock.recv(100) == b""
            sock.sendall(b"answer")
        assert peer.receive() == b"answer"


def test_many_late_headers_at_once(listener: Listener) -> None:
    count = 64
    start = threading.Barrier(count)

    def late() -> None:
        with Peer(listener.getsockname(), V2[:10]) as peer:
            start.wait()
            peer.send(V2[10:])
            assert peer.receive() == b"bye"

    with listener, ThreadPoolExecutor(count) as pool:
        running = [pool.submit(late) for _ in range(count)]
        for _ in range(count):
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"bye")
        for future in running:
            future.result()
        assert listener.stats().accepted == count


def test_a_receive_buffer_below_the_headers_size_is_named() -> None:
    """The kernel lets the peer send no more until somebody reads. Nobody may read before the header is whole."""
    heard: list[Refusal] = []
    options: dict[str, Any] = {"trusted": ["127.0.0.1"], "header_timeout": 0.5}
    with Listener("127.0.0.1", 0, on_refused=heard.append, **options) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        size = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        noop = b"\x04\x0b\xb8" + bytes(3000)
        header = SIGNATURE + b"\x21\x11" + (12 + len(noop)).to_bytes(2, "big") + V2[16:] + noop
        with Peer(listener.getsockname(), header[:100]) as peer:
            until(lambda: listener.stats().pending == 1)
            peer.send(header[100:])
            until(lambda: listener.try_accept() is not None or bool(heard))
    assert heard[0].reason == "timeout"
    assert f"SO_RCVBUF) of {size} bytes" in heard[0].detail
    assert "slow or hostile" not in heard[0].detail
