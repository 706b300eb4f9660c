"""A Listener as a listening socket: what it answers, and what it cannot do."""

from __future__ import annotations

import functools
import os
import pickle
import resource
import socket
from typing import TYPE_CHECKING, Any

import pytest

from leaks import open_files
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_showing_it_opens_nothing_and_never_fails(listener: Listener) -> None:
    before = open_files()
    assert f"laddr={listener.getsockname()!r}" in repr(listener)
    assert open_files() == before
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        text = repr(listener)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "laddr=" in text
    listener.close()
    assert "[closed] fd=-1" in repr(listener)
    assert "Listener" in repr(Listener.__new__(Listener))


def test_a_listener_costs_six_fds(listener: Listener) -> None:
    """The first Listener starts the thread, which has fds of its own."""
    before = len(os.listdir("/proc/self/fd"))
    with Listener("127.0.0.1", 0, trusted=[]):
        assert len(os.listdir("/proc/self/fd")) - before == 6


def test_its_options_are_those_of_the_listening_socket(listener: Listener) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 200_000  # Linux doubles it
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 4) == b"\x01\0\0\0"
    with pytest.raises(OSError, match="not connected"):
        listener.getpeername()


async def refused_async(_: object) -> None:
    """Nobody awaits it."""


class RefusedAsync:
    async def __call__(self, _: object) -> None:
        """Nobody awaits it."""


@pytest.mark.parametrize("callback", [refused_async, RefusedAsync(), functools.partial(refused_async)])
def test_on_refused_is_a_plain_function(listener: Listener, callback: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="plain function"):
        listener.on_refused = callback
    with pytest.raises(TypeError, match="plain function"):
        Listener("127.0.0.1", 0, trusted=[], on_refused=callback)
    listener.on_refused = print


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
