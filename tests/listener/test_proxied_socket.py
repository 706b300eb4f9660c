"""ProxiedSocket: whose addresses it gives, when the client's place is given back, and get_header()."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import socket
import struct
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, SERVER, SIGNATURE, UNKNOWN, UNSPEC, V1, V2, Peer, connected, until
from proxyproto_rs import Header, Listener, ProxiedSocket, get_header, open_streams
from served import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

V2_INET6 = (
    SIGNATURE
    + b"\x21\x21\x00\x24"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 1, 2)
)
V2_UNIX = SIGNATURE + b"\x21\x31\x00\xd8" + b"/client".ljust(108, b"\0") + b"\0server".ljust(108, b"\0")


@contextlib.contextmanager
def accepted(listener: Listener, *chunks: bytes) -> Iterator[tuple[ProxiedSocket, Peer]]:
    with Peer(listener.getsockname(), *chunks) as peer:
        sock, _ = listener.accept()
        with sock:
            yield sock, peer


NAMED: list[tuple[str, bytes, Any, Any]] = [
    ("v1", V1, CLIENT, SERVER),
    ("v2", V2, CLIENT, SERVER),
    ("inet6", V2_INET6, ("2001:db8::1", 1, 0, 0), ("2001:db8::2", 2, 0, 0)),
    ("unix", V2_UNIX, "/client", b"\0server"),
]


@pytest.mark.parametrize(
    ("data", "client", "server"), [case[1:] for case in NAMED], ids=[c[0] for c in NAMED]
)
def test_the_ends_are_those_of_the_header(listener: Listener, data: bytes, client: Any, server: Any) -> None:
    with accepted(listener, data) as (sock, peer):
        assert sock.getpeername() == client
        assert sock.getsockname() == server
        assert sock.proxy_peername == peer.sock.getsockname()
        assert sock.proxy_sockname == peer.sock.getpeername()
        assert sock.header is not None
        assert sock.header.raw == data


@pytest.mark.parametrize("data", [LOCAL, UNSPEC, UNKNOWN], ids=["R23 LOCAL", "R26 UNSPEC", "R10 UNKNOWN"])
def test_the_ends_are_the_real_ones_where_the_header_names_nobody(listener: Listener, data: bytes) -> None:
    with accepted(listener, data) as (sock, peer):
        assert sock.getpeername() == sock.proxy_peername == peer.sock.getsockname()
        assert sock.getsockname() == sock.proxy_sockname == listener.getsockname()
        assert sock.header is not None


def test_a_direct_client_has_no_header() -> None:
    with (
        Listener("127.0.0.1", 0, trusted=["192.0.2.1"], untrusted="direct") as listener,
        accepted(listener, V2) as (sock, peer),
    ):
        assert sock.header is None
        assert get_header(sock) is None
        assert sock.getpeername() == peer.sock.getsockname()
        assert sock.getsockname() == listener.getsockname()
        assert sock.recv(100) == V2


def test_it_is_the_socket_it_says(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, _):
        assert isinstance(sock, socket.socket)
        assert (sock.family, sock.type, sock.proto) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        )
        assert not sock.get_inheritable()
        assert f"raddr={CLIENT!r}" in repr(sock)
        assert not hasattr(sock, "__dict__")


def test_a_closed_socket_has_no_ends_but_keeps_its_header(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, peer):
        sock.close()
        for ask in (sock.getpeername, sock.getsockname):
            with pytest.raises(OSError, match="Bad file descriptor"):
                ask()
        assert get_header(sock) == Header.v2(CLIENT, SERVER)
        assert sock.proxy_peername == peer.sock.getsockname()


def test_closing_gives_the_place_back(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, _):
        assert listener.stats().open == 1
        sock.close()
        assert listener.stats().open == 0
        sock.close()
        assert listener.stats().open == 0


def test_a_place_can_be_kept_for_who_takes_the_fd(listener: Listener) -> None:
    with accepted(listener, V2, b"x") as (sock, _):
        fd = sock.detach(keep_place=True)
        with socket.socket(fileno=fd) as plain:
            assert plain.recv(1) == b"x"
        assert (sock.fileno(), sock.header) == (-1, HEADER)
        assert listener.stats().open == 1
        sock.close()
        assert listener.stats().open == 0


def test_detaching_gives_the_place_back(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, _):
        fd = sock.detach()
        assert listener.stats().open == 0
        assert sock.fileno() == -1
        with socket.socket(fileno=fd) as plain:
            plain.sendall(b"still open")


def test_collecting_gives_the_place_back(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2):
        sock, _ = listener.accept()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del sock
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        caught.clear()  # the warning keeps a reference to the socket
        assert listener.stats().open == 0


def test_the_place_is_kept_for_files_made_of_it(listener: Listener) -> None:
    with accepted(listener, V2, b"line\n") as (sock, _):
        file = sock.makefile("rb")
        sock.close()
        assert listener.stats().open == 1
        assert file.readline() == b"line\n"
        file.close()
        assert listener.stats().open == 0


@pytest.mark.parametrize("first", [0, 1], ids=["original first", "copy first"])
def test_a_duplicate_is_another_of_the_same_connection(listener: Listener, first: int) -> None:
    with accepted(listener, V2, b"ab") as (sock, _):
        sock.settimeout(5)
        duplicate = sock.dup()
        assert isinstance(duplicate, ProxiedSocket)
        assert duplicate.fileno() != sock.fileno()
        assert (duplicate.getpeername(), duplicate.getsockname()) == (CLIENT, SERVER)
        assert duplicate.header is sock.header
        assert duplicate.gettimeout() == 5
        socks = [sock, duplicate]
        assert socks[first].recv(1) == b"a"
        socks[first].close()
        assert listener.stats().open == 1
        assert socks[1 - first].recv(1) == b"b"
        socks[1 - first].close()
        assert listener.stats().open == 0


def test_closing_one_duplicate_twice_counts_once(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, _), sock.dup() as second, sock.dup():
        second.close()
        second.close()
        sock.close()
        assert listener.stats().open == 1


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_it_cannot_be_copied(listener: Listener, copying: Any) -> None:
    with accepted(listener, V2) as (sock, _), pytest.raises(TypeError):
        copying(sock)


def test_shutdown_and_options_are_the_sockets(listener: Listener) -> None:
    with accepted(listener, V2) as (sock, peer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.shutdown(socket.SHUT_WR)
        assert peer.receive() == b""


def test_a_read_grows_with_what_there_is_to_read(listener: Listener) -> None:
    payload = bytes(range(256)) * 1024
    with accepted(listener, V2) as (sock, peer):
        sender = threading.Thread(target=peer.sock.sendall, args=(2 * payload,))
        sender.start()
        assert sock.recv(len(payload), socket.MSG_WAITALL) == payload
        rest, last = bytearray(), 0
        while len(rest) < len(payload):
            read = sock.recv(1 << 20)
            assert 0 < len(read) <= (1 << 20 if last == 120 * 1024 else 120 * 1024)
            rest += read
            last = min(len(read), 120 * 1024)
        assert rest == payload
        sender.join()


def test_a_reset_peer_keeps_its_name(listener: Listener) -> None:
    """The kernel's getpeername() fails then, and so would a log line that asks who it was."""
    with accepted(listener, V2) as (sock, peer):
        peer.reset()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert sock.getpeername() == CLIENT


class Wrapper:
    """Like an object of another library that keeps a transport or a socket in an attribute."""

    def __init__(self, **held: object) -> None:
        self.__dict__.update(held)


async def test_get_header_looks_through_what_asyncio_makes(listener: Listener) -> None:
    async with connected(listener.getsockname(), V2):
        sock = await anext(listener)
        reader, writer = await open_streams(sock)
        transport = writer.transport
        for holder in (sock, transport, writer, transport.get_extra_info("socket")):
            assert get_header(holder) == Header.v2(CLIENT, SERVER)
        assert get_header(Wrapper(transport=transport)) == Header.v2(CLIENT, SERVER)
        assert get_header(Wrapper(transport=Wrapper(transport=transport))) == Header.v2(CLIENT, SERVER)
        assert get_header(Wrapper(socket=sock)) == Header.v2(CLIENT, SERVER)
        writer.close()
        await writer.wait_closed()
        assert get_header(writer) == Header.v2(CLIENT, SERVER)
        del reader


@pytest.mark.parametrize(
    "stranger", [None, 1, "text", object(), Wrapper(), Wrapper(transport=None)], ids=repr
)
def test_get_header_of_anything_else_is_none(stranger: object) -> None:
    assert get_header(stranger) is None


def test_get_header_of_a_plain_socket_is_none() -> None:
    with socket.socket() as sock:
        assert get_header(sock) is None


def test_get_header_ends_where_objects_hold_each_other() -> None:
    holder = Wrapper()
    holder.__dict__["transport"] = holder
    assert get_header(holder) is None


async def test_open_streams_wants_a_proxied_socket() -> None:
    with socket.socket() as sock, pytest.raises(TypeError, match="ProxiedSocket, not socket"):
        await open_streams(sock)  # type: ignore[arg-type]


async def test_open_streams_takes_a_blocking_socket(listener: Listener) -> None:
    async with connected(listener.getsockname(), V2, b"ping") as (peer_reader, _):
        sock, _ = await asyncio.to_thread(listener.accept)
        assert sock.getblocking()
        reader, writer = await open_streams(sock, limit=100)
        assert await reader.readexactly(4) == b"ping"
        assert writer.get_extra_info("peername") == CLIENT
        assert writer.get_extra_info("sockname") == SERVER
        writer.write(b"pong")
        writer.close()
        await writer.wait_closed()
        assert await peer_reader.read() == b"pong"
    assert listener.stats().open == 0


def test_many_connections_are_counted_until_closed(listener: Listener) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(Peer(listener.getsockname(), V2))
        socks = [stack.enter_context(listener.accept()[0]) for _ in range(50)]
        assert listener.stats().open == 50
        for sock in socks[:20]:
            sock.close()
        assert listener.stats().open == 30
    until(lambda: listener.stats().open == 0)
