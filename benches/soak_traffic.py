"""The traffic of a soak: clients behind proxies, health checks, strangers and attackers, in a fixed mixture."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING

from proxyproto_rs import Header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SERVER = ("198.51.100.2", 443)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LARGEST_MESSAGE = 100_000

RESET = struct.pack("ii", 1, 0)


class WrongAnswer(Exception):
    """The server sent something that it must not send."""


class Traffic:
    """Keeps so many connections at a time to one server, until it is told to stop."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.connections = 0
        self.served = 0
        self.wrong: Counter[str] = Counter()
        self._address = address
        self._is_stopped = False

    async def run(self, concurrency: int) -> None:
        await asyncio.gather(*(self._one_after_another() for _ in range(concurrency)))

    def stop(self) -> None:
        self._is_stopped = True

    async def _one_after_another(self) -> None:
        behaviours = list(MIXTURE)
        weights = list(MIXTURE.values())
        while not self._is_stopped:
            (behaviour,) = random.choices(behaviours, weights)
            try:
                await behaviour(self)
            except (WrongAnswer, OSError) as error:
                self.wrong[f"{behaviour.__name__}: {error!r}"] += 1

    @contextlib.asynccontextmanager
    async def connected(self, source: str = "127.0.0.0") -> Iterator[socket.socket]:  # type: ignore[misc]
        """Connect from a random address of the source's /16, so that ports do not run out."""
        with socket.socket() as sock:
            a, b, *_ = source.split(".")
            sock.setblocking(False)
            sock.bind((f"{a}.{b}.{random.randint(0, 255)}.{random.randint(1, 254)}", 0))
            await asyncio.get_running_loop().sock_connect(sock, self._address)
            self.connections += 1
            yield sock

    async def client(self, header: Header, *pieces: bytes, pause: float = 0.0) -> None:
        """A client that is served. It gets its own address, and all that it sent."""
        loop = asyncio.get_running_loop()
        async with self.connected() as sock:
            for piece in pieces or [header.raw]:
                await loop.sock_sendall(sock, piece)
                if pause:
                    await asyncio.sleep(pause)
            message = random.randbytes(random.choice([0, 10, 1000, LARGEST_MESSAGE]))
            sending = asyncio.create_task(send_all_and_end(sock, message))
            received = await receive_all(sock)
            await sending
            client = header.source[0] if header.source else sock.getsockname()[0]
            if received != f"{client}\n".encode() + message:
                raise WrongAnswer(f"{received[:40]!r}... of {len(received)} bytes")
        self.served += 1

    async def stranger(self, first_bytes: bytes, *, ends: bool = False, source: str = "127.0.0.0") -> None:
        """A peer that is refused. It sees the end of the connection and nothing else."""
        async with self.connected(source) as sock:
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(sock, first_bytes)
                if ends:
                    sock.shutdown(socket.SHUT_WR)
            received = await receive_all(sock)
            if received:
                raise WrongAnswer(f"{received[:40]!r}")


async def send_all_and_end(sock: socket.socket, message: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, message)
    sock.shutdown(socket.SHUT_WR)


async def receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := await asyncio.get_running_loop().sock_recv(sock, 65536):
            received += chunk
    return bytes(received)


def random_client() -> tuple[str, int]:
    return (f"192.0.{random.randint(0, 255)}.{random.randint(1, 254)}", random.randint(1, 65535))


def random_client6() -> tuple[str, int]:
    return (f"2001:db8:{random.randint(1, 65535):x}::{random.randint(1, 65535):x}", random.randint(1, 65535))


async def v1(traffic: Traffic) -> None:
    await traffic.client(Header.v1(random_client(), SERVER))


async def v1_of_ipv6(traffic: Traffic) -> None:
    await traffic.client(Header.v1(random_client6(), ("2001:db8::2", 443)))


async def v2(traffic: Traffic) -> None:
    await traffic.client(Header.v2(random_client(), SERVER))


async def v2_with_tlvs(traffic: Traffic) -> None:
    tlvs = [(0x02, b"example.org"), (0x05, random.randbytes(16)), (0x04, bytes(random.randint(0, 3000)))]
    await traffic.client(Header.v2(random_client6(), ("2001:db8::2", 443), tlvs=tlvs, checksum=True))


async def in_pieces(traffic: Traffic) -> None:
    header = Header.v2(random_client(), SERVER, tlvs=[(0x04, bytes(1000))], checksum=True)
    cuts = sorted(random.sample(range(len(header.raw)), 3))
    pieces = [header.raw[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
    await traffic.client(header, *pieces, pause=0.02)


async def health_check(traffic: Traffic) -> None:
    await traffic.client(random.choice([Header.local(), Header.local(checksum=True), Header.unknown()]))


async def one_greedy_client(traffic: Traffic) -> None:
    with contextlib.suppress(WrongAnswer, OSError):  # served, or refused for its rate
        await traffic.client(Header.v2(("198.51.100.1", 1), SERVER))


async def denied(traffic: Traffic) -> None:
    await traffic.stranger(Header.v2(("203.0.113.7", 1), SERVER).raw)


async def untrusted(traffic: Traffic) -> None:
    await traffic.stranger(Header.v1(random_client(), SERVER).raw, source="127.200.0.0")


async def not_a_header(traffic: Traffic) -> None:
    await traffic.stranger(
        random.choice([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01", random.randbytes(64)])
    )


async def broken(traffic: Traffic) -> None:
    await traffic.stranger(
        random.choice(
            [
                b"PROXY TCP4 192.0.2.1 198.51.100.2 080 443\r\n",
                SIGNATURE + b"\x21\x13\0\x0c",
                SIGNATURE + b"\x21\x11\xff\xff",
                SIGNATURE + b"\x20\0\0\x07\x03\0\x04nono",
                b"PROXY UNKNOWN ".ljust(107, b"x"),
            ]
        )
    )


async def half_a_header(traffic: Traffic) -> None:
    await traffic.stranger(Header.v2(random_client(), SERVER).raw[:20], ends=True)


async def silent(traffic: Traffic) -> None:
    await traffic.stranger(b"")


async def stalled(traffic: Traffic) -> None:
    await traffic.stranger(Header.v1(random_client(), SERVER).raw[:30])


async def gone_at_once(traffic: Traffic) -> None:
    async with traffic.connected() as sock:
        if random.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def gone_when_served(traffic: Traffic) -> None:
    async with traffic.connected() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await asyncio.get_running_loop().sock_sendall(sock, Header.v2(random_client(), SERVER).raw + b"x")


MIXTURE: dict[Callable[[Traffic], Awaitable[None]], int] = {
    v1: 100,
    v1_of_ipv6: 50,
    v2: 200,
    v2_with_tlvs: 100,
    in_pieces: 20,
    health_check: 50,
    one_greedy_client: 100,
    denied: 50,
    untrusted: 50,
    not_a_header: 50,
    broken: 50,
    half_a_header: 30,
    silent: 5,
    stalled: 5,
    gone_at_once: 30,
    gone_when_served: 30,
}
"""How often each occurs, as parts of the sum."""
