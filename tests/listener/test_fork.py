"""Forked children: an inherited Listener says what is wrong with it, and new ones work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, V1, V2, Peer, until, wait_readable
from proxyproto_rs import AddressSet, ClientLimits, Listener, _core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# From Python 3.12 on, forking with threads warns; these have their listeners' thread, which no child waits for.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")


def in_child(function: Callable[[], None]) -> None:
    """Run the function in a forked child; fail with its traceback if it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            # Run neither the parent's atexit functions nor the rest of its tests.
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    assert not text, text


def take_one(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2):
        sock, address = listener.accept()
        sock.close()
        assert address == CLIENT


def test_an_inherited_listener_says_what_is_wrong(listener: Listener) -> None:
    async def serve() -> None:
        for starting in (
            listener.create_server(asyncio.Protocol),
            listener.start_server(lambda reader, writer: None),
            anext(listener),
            asyncio.start_server(lambda reader, writer: None, sock=listener),
        ):
            with pytest.raises(RuntimeError, match="fork"):
                await starting

    def child() -> None:
        for method in ("accept", "try_accept", "stats", "listen", "drain"):
            with pytest.raises(RuntimeError, match="fork"):
                getattr(listener, method)()
        with pytest.raises(RuntimeError, match="fork"):
            listener.update(max_pending=1)
        asyncio.run(serve())

    in_child(child)
    take_one(listener)


def test_a_child_closes_its_inherited_listener_and_not_its_parents(listener: Listener) -> None:
    def child() -> None:
        before = set(os.listdir("/proc/self/fd"))
        listener.close()
        listener.close()
        assert listener.fileno() == -1
        after = set(os.listdir("/proc/self/fd"))
        names = {os.readlink(f"/proc/self/fd/{fd}") for fd in after - before}
        assert after < before, names

    in_child(child)
    assert not wait_readable(listener.fileno(), 0)
    take_one(listener)
    assert listener.stats().accepted == 1


def open_files() -> dict[int, str]:
    files = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        # The listing's own is closed by now.
        with contextlib.suppress(FileNotFoundError):
            files[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return files


@pytest.mark.parametrize("ahead", [None, 0], ids=["ahead", "on demand"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "not even closed"])
def test_a_child_holds_nothing_of_what_it_inherited(ahead: int | None, is_closed: bool) -> None:
    before = open_files()
    with Listener("127.0.0.1", 0, ahead=ahead, trusted=["127.0.0.1"]) as listener:
        address = listener.getsockname()
        with Peer(address, V1[:20]), Peer(address, V2), Peer(address, V2):
            taken = listener.accept()[0]
            until(lambda: listener.stats().pending == 1)
            if ahead is None:
                until(lambda: listener.stats().ready == 1)

            def child() -> None:
                taken.close()
                gc.collect()
                if is_closed:
                    listener.close()
                left = {fd: name for fd, name in open_files().items() if before.get(fd) != name}
                # The test's own: the ends of its pipe, and the peers.
                peers = {peer.fileno() for peer in gc.get_objects() if type(peer) is socket.socket}
                left = {fd: name for fd, name in left.items() if fd not in peers and "pipe:" not in name}
                if is_closed:
                    assert left == {}
                else:
                    # Python's object is there still, but it holds no connection.
                    assert not [name for fd, name in left.items() if is_connected(fd)], left

            in_child(child)
            taken.close()
        take_one(listener)


def is_connected(fd: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.getpeername()
        return True
    return False


def test_what_the_parent_closes_is_closed_while_a_child_lives() -> None:
    """Every multiprocessing worker is such a child: it holds copies of what its parent had open."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener:
        address = listener.getsockname()
        with Peer(address, V1[:20]) as pending, Peer(address, V2) as ready:
            until(lambda: (listener.stats().pending, listener.stats().ready) == (1, 1))
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            try:
                listener.close()
                assert pending.sees_the_end()
                assert ready.sees_the_end()
                with pytest.raises(ConnectionRefusedError):
                    Peer(address)
                with Listener(*address, trusted=["127.0.0.1"]) as successor:
                    take_one(successor)
            finally:
                os.close(writing)
                os.close(reading)
                os.waitpid(child, 0)


def test_a_child_lets_go_of_all_that_it_has_inherited() -> None:
    before = open_files()
    drained = Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"])
    drained.drain()
    assert wait_readable(drained.fileno())
    with pytest.raises(OSError, match="closed"):
        drained.accept()
    with drained, Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        inherited = open_files().keys() - before.keys()

        def child() -> None:
            listener.close()
            drained.close()
            left = {fd: name for fd, name in open_files().items() if fd in inherited}
            assert not left, left

        in_child(child)
        assert not wait_readable(drained.fileno(), 0)
        assert not wait_readable(listener.fileno(), 0)
        with Peer(listener.getsockname(), V2):
            assert wait_readable(listener.fileno())
            listener.accept()[0].close()


def test_a_child_does_not_remove_its_parents_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    with Listener.unix(path) as listener:
        in_child(listener.close)
        assert path.is_socket()
        with Peer(str(path), V2):
            listener.accept()[0].close()


def test_a_child_that_ends_leaves_the_parents_listener(listener: Listener) -> None:
    in_child(lambda: None)
    take_one(listener)


def test_a_child_makes_its_own_listener(listener: Listener) -> None:
    def child() -> None:
        with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as own:
            take_one(own)

    in_child(child)
    take_one(listener)


def test_children_adopt_one_listening_socket() -> None:
    """Pre-fork: the parent binds before it forks; each child makes a Listener of it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def child() -> None:
            with Listener.adopt(sock, trusted=["127.0.0.1"]) as listener:
                take_one(listener)

        in_child(child)
        in_child(child)


def test_a_thread_waits_in_the_parent_while_a_child_closes(listener: Listener) -> None:
    """The child's copy says that a thread waits. That thread does not exist in the child."""
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listener.accept)
        while not listener._wake_fd._waiting:
            os.sched_yield()
        in_child(listener.close)
        with Peer(listener.getsockname(), V1):
            accepting.result()[0].close()


def test_accepted_connections_are_the_childs_too(listener: Listener) -> None:
    """A forking server: the parent closes its copy of the connection, and the child goes on."""
    with Peer(listener.getsockname(), V2) as peer:
        sock, _ = listener.accept()

        def child() -> None:
            assert sock.getpeername() == CLIENT
            sock.sendall(b"from the child")
            sock.close()

        with contextlib.closing(sock):
            in_child(child)
        assert peer.receive() == b"from the child"
    assert listener.stats().open == 0


def test_the_thread_rests_while_a_process_forks(listener: Listener) -> None:
    """The thread holds no lock during a fork, so the child waits for none."""
    _core._before_fork()
    try:
        with Peer(listener.getsockname(), V2):
            assert not wait_readable(listener.fileno(), 0.05)
            _core._after_fork_in_parent()
            listener.accept()[0].close()
    finally:
        _core._after_fork_in_parent()


def test_a_child_goes_on_with_the_sets_and_limits_of_its_parent() -> None:
    deny, limits = AddressSet(["198.51.100.0/24"]), ClientLimits(max_connections=1)
    options: dict[str, Any] = {"trusted": ["127.0.0.1"], "deny": deny, "client_limits": limits}

    def child() -> None:
        deny.add("203.0.113.1")
        with Listener("127.0.0.1", 0, **options) as own:
            take_one(own)

    with Listener("127.0.0.1", 0, **options) as listener:
        in_child(child)
        take_one(listener)
    assert "203.0.113.1" not in deny


COUNTED_WHILE_ANOTHER_THREAD_FORKS = """
import os, sys, threading
from proxyproto_rs import AddressSet, Listener

listeners = [Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) for _ in range(int(sys.argv[1]))]
networks = AddressSet(f"10.0.{number >> 8}.{number & 255}" for number in range(5000))
is_over = False

def count():
    while not is_over:
        assert len(networks) == len(list(networks)) == 5000

threads = [threading.Thread(target=count) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        networks.add("192.0.2.1")
        os._exit(len(networks) != 5001)
    assert os.waitpid(child, 0)[1] == 0
is_over = True
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("listeners", [0, 1])
def test_a_set_that_is_counted_while_another_thread_forks_is_the_childs_too(listeners: int) -> None:
    """Counting goes on without the interpreter, so a fork has to wait for it, and must not wait for ever."""
    program = [sys.executable, "-W", "ignore", "-c", COUNTED_WHILE_ANOTHER_THREAD_FORKS, str(listeners)]
    subprocess.run(program, check=True, timeout=50)


def test_threads_may_fork_at_once(listener: Listener) -> None:
    with ThreadPoolExecutor(4) as pool:
        for forking in [pool.submit(in_child, lambda: None) for _ in range(12)]:
            forking.result()
    take_one(listener)


def test_a_process_without_a_listener_forks_as_ever() -> None:
    in_child(lambda: None)


def test_a_program_that_is_executed_inherits_nothing() -> None:
    def count_inherited() -> int:
        program = [sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"]
        return int(subprocess.run(program, stdout=subprocess.PIPE, check=True, close_fds=False).stdout)

    before = count_inherited()
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener,
        Peer(listener.getsockname(), V2),
        listener.accept()[0],
    ):
        assert count_inherited() == before


DROPPED_BETWEEN_THE_HOOKS = """
import threading
from proxyproto_rs import Listener, _core

kept = Listener("127.0.0.1", 0, trusted=["127.0.0.1"])
acceptors = [_core.Acceptor.bind(("127.0.0.1", 0), backlog=1, reuse_port=False, dualstack=False, ahead=None, options={})]
_core._before_fork()
dropping = threading.Thread(target=acceptors.clear)
dropping.start()
# It waits for the background thread, which rests: the interpreter must be ours meanwhile.
_core._after_fork_in_parent()
dropping.join()
kept.close()
print("done")
"""


def test_an_acceptor_that_is_collected_while_another_thread_forks_does_not_hold_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED_BETWEEN_THE_HOOKS],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "done\n"
