"""What follows the header reaches the server untouched and in order, however it is cut (2.1 and 2.2 say "skip")."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from peers import V1, V2, Peer, connected

if TYPE_CHECKING:
    from proxyproto_rs import Listener, ProxiedSocket

MORE_THAN_ANY_BUFFER = random.Random(0).randbytes(8 * 1024 * 1024)

PAYLOADS = [
    b"",
    b"x",
    b"\r\n",
    b"\x00" * 100,
    V1,
    V2,
    V1[:20],
    b"\r\n\r\n\x00\r\nQUIT\n",
]


def receive_all(sock: ProxiedSocket) -> bytes:
    received = bytearray()
    while chunk := sock.recv(65536):
        received += chunk
    return bytes(received)


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_payload_in_the_same_segment(listener: Listener, header: bytes, payload: bytes) -> None:
    """Even if it looks like another header: a connection has only one (R8)."""
    with Peer(listener.getsockname(), header + payload) as peer:
        peer.end()
        sock, _ = listener.accept()
        with sock:
            assert receive_all(sock) == payload
            assert sock.header is not None
            assert sock.header.raw == header


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_each_split_of_header_and_payload(listener: Listener, header: bytes) -> None:
    data = header + b"payload"
    for split in range(1, len(data)):
        with Peer(listener.getsockname(), data[:split], data[split:]) as peer:
            peer.end()
            sock, _ = listener.accept()
            with sock:
                assert receive_all(sock) == b"payload", split


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_more_than_any_buffer_holds(listener: Listener, header: bytes) -> None:
    def send() -> None:
        with Peer(listener.getsockname(), header + MORE_THAN_ANY_BUFFER) as peer:
            peer.end()
            assert peer.receive() == b""

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        sock, _ = listener.accept()
        with sock:
            assert receive_all(sock) == MORE_THAN_ANY_BUFFER
        sending.result()


@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_servers_on_a_loop_get_all_of_it(listener: Listener, kind: str) -> None:
    loop = asyncio.get_running_loop()
    whole: asyncio.Future[bytes] = loop.create_future()

    class Collect(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.received = bytearray()

        def data_received(self, data: bytes) -> None:
            self.received += data

        def connection_lost(self, exc: Exception | None) -> None:
            whole.set_result(bytes(self.received))

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        whole.set_result(data)

    if kind == "create_server":
        server = await listener.create_server(Collect)
    else:
        server = await listener.start_server(collect)
    async with server:
        async with connected(listener.getsockname(), V2 + b"first ") as (_, writer):
            writer.write(MORE_THAN_ANY_BUFFER)
            await writer.drain()
        assert await whole == b"first " + MORE_THAN_ANY_BUFFER


def test_a_client_that_speaks_later_is_not_waited_for(listener: Listener) -> None:
    """The header alone is enough to be accepted: a server may have to speak first."""
    with Peer(listener.getsockname(), V2) as peer:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"220 ready\r\n")
            assert peer.sock.recv(100) == b"220 ready\r\n"
            peer.send(b"QUIT")
            # One byte is there, and one is asked for: the acceptor must have reset SO_RCVLOWAT, which it set for the header.
            assert sock.recv(1) == b"Q"
            assert sock.recv(100) == b"UIT"
