"""ahead=0: a connection stays in the kernel until it is asked for, and whoever asks takes it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, V1, V2, Peer, connected, until, wait_readable
from proxyproto_rs import Listener, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUSTED: dict[str, Any] = {"trusted": ["127.0.0.0/8"]}


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener("127.0.0.1", 0, ahead=0, defer_accept=False, **TRUSTED) as listener:
        yield listener


def test_nothing_is_taken_before_it_is_asked_for(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2), Peer(listener.getsockname(), V2):
        assert wait_readable(listener.fileno())
        assert (listener.stats().ready, listener.stats().accepted) == (0, 0)
        sock, address = listener.accept()
        sock.close()
        assert address == CLIENT
        assert listener.stats().accepted == 1


@pytest.mark.parametrize(
    ("make", "is_on_demand"),
    [
        (lambda: Listener("127.0.0.1", 0, **TRUSTED), False),
        (lambda: Listener("127.0.0.1", 0, reuse_port=True, **TRUSTED), True),
        (lambda: Listener("127.0.0.1", 0, reuse_port=True, ahead=8, **TRUSTED), False),
        (lambda: Listener("127.0.0.1", 0, ahead=0, **TRUSTED), True),
        (lambda: Listener.adopt(socket.create_server(("127.0.0.1", 0)), **TRUSTED), True),
        (lambda: Listener.adopt(socket.create_server(("127.0.0.1", 0)), ahead=1, **TRUSTED), False),
    ],
    ids=["bound", "reuse_port", "reuse_port ahead=8", "ahead=0", "adopted", "adopted ahead=1"],
)
def test_who_shares_a_socket_takes_on_demand(make: Any, is_on_demand: bool) -> None:
    with make() as listener, Peer(listener.getsockname(), V2):
        if is_on_demand:
            assert wait_readable(listener.fileno())
            assert listener.stats().ready == 0
        else:
            until(lambda: listener.stats().ready == 1)
        listener.accept()[0].close()


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_ahead_is_a_number_of_connections(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="ahead"):
        Listener("127.0.0.1", 0, ahead=value, **TRUSTED)


def test_a_late_header_is_waited_for_by_nobody(listener: Listener) -> None:
    with Peer(listener.getsockname(), V1[:10]) as late, Peer(listener.getsockname(), V2):
        listener.accept()[0].close()
        until(lambda: listener.stats().pending == 1 or listener.try_accept() is not None)
        late.send(V1[10:], b"payload")
        assert wait_readable(listener.fileno())
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(7) == b"payload"


def test_every_split_of_a_header_comes_back_whole(listener: Listener) -> None:
    for split in range(1, len(V2)):
        with Peer(listener.getsockname(), V2[:split]) as late:
            listener.setblocking(False)
            until(lambda: listener.try_accept() is not None or listener.stats().pending == 1)
            listener.setblocking(True)
            late.send(V2[split:], b"x")
            sock, address = listener.accept()
            with sock:
                assert (sock.recv(1), address) == (b"x", CLIENT)


def test_refused_ones_are_told_and_do_not_keep_the_caller() -> None:
    heard: list[Refusal] = []
    with Listener("127.0.0.1", 0, ahead=0, trusted=["127.0.0.2"], on_refused=heard.append) as listener:
        listener.setblocking(False)
        peers = [Peer(listener.getsockname()) for _ in range(200)]
        until(lambda: listener.stats()["untrusted"] == 200 if try_to_accept(listener) is None else False)
        for peer in peers:
            assert peer.sees_the_end()
            peer.sock.close()
        until(lambda: try_to_accept(listener) is None and sum(refusal.count for refusal in heard) == 200)


def try_to_accept(listener: Listener) -> object:
    try:
        return listener.accept()
    except BlockingIOError:
        return None


def test_a_timeout_and_threads(listener: Listener) -> None:
    listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.settimeout(None)
    with ThreadPoolExecutor(4) as pool:
        takers = [pool.submit(listener.accept) for _ in range(4)]
        peers = [Peer(listener.getsockname(), V2) for _ in range(4)]
        for taker in takers:
            taker.result()[0].close()
        for peer in peers:
            peer.sock.close()


def test_two_processes_serve_one_socket_and_none_waits_for_the_other() -> None:
    """What one has not asked for, the other serves: with connections taken ahead these would wait."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        busy = Listener.adopt(shared.dup(), **TRUSTED)
        free = Listener.adopt(shared.dup(), **TRUSTED)
        with busy, free:
            peers = [Peer(shared.getsockname(), V2) for _ in range(20)]
            busy.accept()[0].close()  # and is busy with it from now on
            for _ in range(19):
                free.accept()[0].close()
            for peer in peers:
                peer.sock.close()


def test_accept_sees_the_close(listener: Listener) -> None:
    with ThreadPoolExecutor(1) as pool:
        taker = pool.submit(listener.accept)
        listener.close()
        with pytest.raises(OSError, match="closed") as caught:
            taker.result()
        assert caught.value.errno == errno.EBADF


def test_draining_an_own_socket_serves_what_the_kernel_has() -> None:
    with Listener("127.0.0.1", 0, reuse_port=True, defer_accept=False, **TRUSTED) as listener:
        peers = [Peer(listener.getsockname(), V2) for _ in range(10)]
        listener.drain()
        for _ in range(10):
            listener.accept()[0].close()
        with pytest.raises(OSError, match="closed"):
            listener.accept()
        for peer in peers:
            peer.sock.close()


def test_draining_an_adopted_socket_keeps_what_was_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as shared,
        Listener.adopt(shared.dup(), **TRUSTED) as listener,
        Peer(shared.getsockname(), V1[:10]) as late,
    ):
        until(lambda: listener.try_accept() is not None or listener.stats().pending == 1)
        listener.drain()
        with Peer(shared.getsockname(), b"not ours"):
            late.send(V1[10:])
            sock, address = listener.accept()
            sock.close()
            assert address == CLIENT
            with pytest.raises(OSError, match="closed"):
                listener.accept()
            # It waits in the kernel for the socket's other holders.
            assert select.select([shared], [], [], 0)[0]


def test_out_of_descriptors_it_is_tried_again(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2):
        assert wait_readable(listener.fileno())
        held: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            assert listener.try_accept() is None
            until(lambda: listener.stats().pauses == 1)
        finally:
            for fd in held:
                os.close(fd)
        sock, address = listener.accept()
        sock.close()
        assert address == CLIENT


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(4))
    writer.close()
    await writer.wait_closed()


async def test_our_server_serves_on_demand(listener: Listener) -> None:
    async with await listener.start_server(echo):
        for header in (V1, V2, LOCAL):
            async with connected(listener.getsockname(), header) as (reader, writer):
                writer.write(b"ping")
                assert await reader.read() == b"ping"


async def test_many_clients_are_served_on_demand(listener: Listener) -> None:
    async def client() -> None:
        async with connected(listener.getsockname(), V2) as (reader, writer):
            writer.write(b"ping")
            assert await reader.read() == b"ping"

    async with await listener.start_server(echo):
        for _ in range(10):
            await asyncio.gather(*(client() for _ in range(50)))
    assert threading.active_count() >= 1
