"""Closing wakes those who wait, closes what was not taken, and leaves nothing open. And draining."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from peers import V2, Peer, until, wait_readable
from proxyproto_rs import Listener, Refusal

if TYPE_CHECKING:
    from pathlib import Path


def files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_closing_leaves_nothing_open_though_the_object_lives() -> None:
    before = files()
    listener = Listener("127.0.0.1", 0, trusted=["127.0.0.1"])
    assert files() > before
    listener.close()
    assert files() == before
    assert listener.fileno() == -1
    assert "[closed] fd=-1" in repr(listener)


def test_closing_twice_is_fine(listener: Listener) -> None:
    listener.close()
    listener.close()


def test_nobody_listens_any_more(listener: Listener) -> None:
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        Peer(address)
    with Listener(*address, trusted=[]):  # the address is free at once
        pass


@pytest.mark.parametrize("waiters", [1, 8])
def test_blocked_threads_are_woken(listener: Listener, waiters: int) -> None:
    with ThreadPoolExecutor(waiters) as pool:
        accepting = [pool.submit(listener.accept) for _ in range(waiters)]
        until(lambda: listener._wake_fd._waiting == waiters)
        listener.close()
        for future in accepting:
            error = future.exception()
            assert isinstance(error, OSError)
            assert error.errno == errno.EBADF


def test_a_blocked_thread_with_a_timeout_is_woken_too(listener: Listener) -> None:
    listener.settimeout(3600)
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        until(lambda: listener._wake_fd._waiting == 1)
        listener.close()
        assert isinstance(accepting.exception(), OSError)


@pytest.mark.parametrize("method", ["accept", "try_accept", "listen", "getsockname"])
def test_a_closed_listener_does_nothing(listener: Listener, method: str) -> None:
    listener.close()
    with pytest.raises(OSError, match=r"closed|Bad file descriptor") as caught:
        getattr(listener, method)()
    assert caught.value.errno == errno.EBADF


def test_its_numbers_and_options_stay(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2):
        listener.accept()[0].close()
    listener.close()
    assert listener.stats()["v2"] == 1
    assert listener.options["proxy_protocol"] == "required"
    with pytest.raises(OSError, match="closed"):
        listener.update(max_pending=1)
    listener.drain()


def test_connections_that_were_not_accepted_are_closed(listener: Listener) -> None:
    with (
        Peer(listener.getsockname(), V2) as ready,
        Peer(listener.getsockname(), V2[:20]) as pending,
    ):
        until(lambda: (listener.stats().ready, listener.stats().pending) == (1, 1))
        listener.close()
        assert ready.sees_the_end()
        assert pending.sees_the_end()
        stats = listener.stats()
        assert (stats.ready, stats.pending, stats.open) == (0, 0, 0)


def test_connections_that_were_accepted_go_on(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2) as peer:
        sock, _ = listener.accept()
        with sock:
            listener.close()
            sock.sendall(b"still here")
            assert peer.sock.recv(100) == b"still here"
            assert sock.header is not None


def test_the_last_refusals_are_told() -> None:
    refused: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=refused.append) as listener,
        Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n") as peer,
    ):
        assert peer.sees_the_end()
    assert len(refused) == 1


def test_an_unclosed_listener_warns_and_closes() -> None:
    before = files()
    listener = Listener("127.0.0.1", 0, trusted=["127.0.0.1"])
    address = listener.getsockname()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del listener
        gc.collect()
    (warning,) = caught
    assert warning.category is ResourceWarning
    assert str(warning.message).startswith("unclosed <proxyproto_rs")
    assert str(address[1]) in str(warning.message)
    del warning
    caught.clear()  # the warning keeps a reference to the socket
    gc.collect()
    assert files() == before


def test_a_constructor_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = files()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for _ in range(3):
            with pytest.raises(OSError, match="Address already in use"):
                Listener("127.0.0.1", taken.getsockname()[1], trusted=[])
            with pytest.raises(ValueError, match="max_pending"):
                Listener.unix(tmp_path / "listener.sock", max_pending=0)
    gc.collect()
    assert files() == before
    assert not (tmp_path / "listener.sock").exists()


def test_a_listener_that_closes_while_threads_take(listener: Listener) -> None:
    """No connection is lost in between: each one is accepted, or closed with the listener."""
    count = 200

    def take() -> int:
        taken = 0
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()
                taken += 1
        return taken

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        peers = [stack.enter_context(Peer(listener.getsockname(), V2)) for _ in range(count)]
        taking = [pool.submit(take) for _ in range(4)]
        until(lambda: listener.stats().accepted > count // 2)
        listener.close()
        for peer in peers:
            assert peer.sees_the_end()
        assert 0 < sum(future.result() for future in taking) <= count
    until(lambda: listener.stats().open == 0)


# --- Draining ---


def test_closing_wakes_whoever_polls_a_drained_listener(listener: Listener) -> None:
    fd = listener.fileno()
    listener.drain()
    assert wait_readable(fd)
    with pytest.raises(OSError, match="closed"):
        listener.accept()
    assert not wait_readable(fd, 0)
    tasks: list[int] = []

    def poll() -> bool:
        tasks.append(threading.get_native_id())
        return wait_readable(fd, 20)

    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(poll)
        until(lambda: bool(tasks) and sleeps(tasks[0]))
        listener.close()
        assert polling.result(timeout=10)  # poll(2) looks once more when its timeout ends


def sleeps(task: int) -> bool:
    with open(f"/proc/self/task/{task}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def test_a_drained_listener_gives_what_it_has_and_ends(listener: Listener) -> None:
    address = listener.getsockname()
    with Peer(address, V2), Peer(address, V2), Peer(address, V2[:20]) as late:
        until(lambda: (listener.stats().ready, listener.stats().pending) == (2, 1))
        listener.drain()
        for _ in range(2):
            listener.accept()[0].close()
        late.send(V2[20:])
        listener.accept()[0].close()
        with pytest.raises(OSError, match="closed") as caught:
            listener.accept()
        assert caught.value.errno == errno.EBADF
        assert not wait_readable(listener.fileno(), 0)
    with pytest.raises(ConnectionRefusedError):
        Peer(address)
    assert listener.stats()["v2"] == 3


def test_draining_wakes_who_waits_in_vain(listener: Listener) -> None:
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        until(lambda: listener._wake_fd._waiting == 1)
        listener.drain()
        assert isinstance(accepting.exception(), OSError)


def test_a_unix_listener_removes_its_file_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    with Listener.unix(path):
        assert path.is_socket()
        with pytest.raises(OSError, match=str(path)) as caught:
            Listener.unix(path)
        assert caught.value.errno == errno.EADDRINUSE
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Listener.unix(path), Peer(str(path), V2):
        pass
    path.write_text("not a socket")
    with pytest.raises(OSError, match=str(path)):
        Listener.unix(path)
    assert path.read_text() == "not a socket"
