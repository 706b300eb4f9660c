"""Whoever goes behind a Listener's own methods gets an error, and never a connection that the acceptor has not passed."""

from __future__ import annotations

import _socket
import contextlib
import errno
import itertools
import os
import socket
import stat
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from leaks import open_files
from peers import V2, Peer
from proxyproto_rs import Listener

METHODS = sorted(
    name
    for name in dir(socket.socket)
    if callable(getattr(socket.socket, name)) and not (name.startswith("__") and name.endswith("__"))
)

# Whatever a method takes, one of these fits. An address is put in the place of the Listener's own.
ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    (False,),
    (1,),
    (b"x",),
    (bytearray(1),),
    ("address",),
    (b"x", "address"),
    ([b"x"],),
    ([bytearray(1)],),
    (socket.SOL_SOCKET, socket.SO_TYPE),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
]


def methods_of(listener: Listener, name: str) -> list[Any]:
    """The method as callers find it, and those behind it."""
    return [
        getattr(listener, name),
        *(
            getattr(base, name).__get__(listener)
            for base in (socket.socket, _socket.socket)
            if hasattr(base, name)
        ),
    ]


def connected_to(address: Any) -> list[int]:
    """The fds of this process that are the other end of the socket with this address."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.getpeername() == address:
                    found.append(int(name))
    return found


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("name", METHODS)
def test_no_method_hands_out_a_connection(name: str) -> None:
    """The peer is not trusted, and waits in the kernel's queue: on demand nobody has taken it from there."""
    for arguments, index in itertools.product(ARGUMENTS, range(3)):
        with Listener("127.0.0.1", 0, trusted=[], ahead=0) as listener:
            address = listener.getsockname()
            methods = methods_of(listener, name)
            if index >= len(methods):
                continue
            listener.settimeout(0)
            given = [address if argument == "address" else argument for argument in arguments]
            with Peer(address, V2) as peer:
                files = open_files()
                result = None
                with contextlib.suppress(Exception):
                    result = methods[index](*given)
                assert connected_to(peer.sock.getsockname()) == [], (name, arguments)
                left = open_files().keys() - files.keys()
                # detach() gives one away, and dup() of the socket module loses one when it fails.
                for fd in [result] if name == "detach" and isinstance(result, int) else map(int, left):
                    with contextlib.suppress(OSError):
                        os.close(fd)


def test_the_walk_would_find_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain, Peer(plain.getsockname()) as peer:
        fd, _ = plain._accept()  # type: ignore[attr-defined]  # what gevent calls
        assert connected_to(peer.sock.getsockname()) == [fd]
        os.close(fd)


def test_the_one_who_is_told_what_to_call(listener: Listener) -> None:
    with pytest.raises(TypeError, match=r"accept\(\) and try_accept\(\)"):
        listener._accept()
    with pytest.raises(TypeError, match="accept"):
        socket.socket.accept(listener)


def test_its_fd_is_no_socket(listener: Listener) -> None:
    assert listener.fileno() == socket.socket.fileno(listener)
    with pytest.raises(OSError, match="non-socket") as caught:
        socket.socket(fileno=listener.fileno())
    assert caught.value.errno == errno.ENOTSOCK
    for method, arguments in (
        ("_accept", ()),
        ("listen", (5,)),
        ("connect", (("127.0.0.1", 1),)),
        ("bind", (("127.0.0.1", 0),)),
        ("getsockname", ()),
    ):
        with pytest.raises(OSError, match="non-socket"):
            getattr(_socket.socket, method)(listener, *arguments)


def test_gevents_server_gets_nothing() -> None:
    """gevent's StreamServer takes connections by `_accept`. It reports the TypeError, and serves nobody."""
    program = """
        import gevent, socket
        from gevent.server import StreamServer
        from proxyproto_rs import Listener

        served, errors = [], []
        gevent.get_hub().handle_error = lambda context, kind, error, traceback: errors.append(error)
        listener = Listener("127.0.0.1", 0, trusted=[])
        server = StreamServer(listener, lambda *given: served.append(given))
        server.start()
        peers = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        for peer in peers:
            peer.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\\r\\n")
        while not errors:
            gevent.sleep(0)
        assert not served, served
        assert "hands out connections by accept()" in str(errors[0])
        server.stop()
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
