"""A Listener as the listening socket it is: what it answers, and what it cannot do."""

from __future__ import annotations

import pickle
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from proxyproto_rs import Listener


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
