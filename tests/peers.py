"""Scripted peers: proxies that send headers, whole or in pieces, and whoever else connects; TLS for both ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import select
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from proxyproto_rs import Listener, Refusal

_Result = TypeVar("_Result")

CLIENT = ("192.0.2.1", 51724)
SERVER = ("198.51.100.2", 443)

# Written out byte by byte: the tests of the listener must not depend on the encoder.
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 51724 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 51724, 443)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
UNSPEC = SIGNATURE + b"\x21\x00\x00\x00"
UNKNOWN = b"PROXY UNKNOWN\r\n"


class Peer:
    """The other end of one connection. It sends what a test tells it to send, and sees what comes."""

    def __init__(self, address: Any, *chunks: bytes) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str | bytes) else _family(address))
        self.sock.settimeout(None)  # whatever socket.setdefaulttimeout says
        try:
            self.sock.connect(address)
            self.send(*chunks)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def name(self) -> str:
        """Its own address, as logs write it."""
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.sock.sendall(chunk)

    def receive(self) -> bytes:
        """Everything that comes until the other end closes or resets."""
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while chunk := self.sock.recv(65536):
                received += chunk
        return bytes(received)

    def sees_the_end(self) -> bool:
        """Wait until the other end closes; True unless it has sent something before."""
        return self.receive() == b""

    def end(self) -> None:
        """Shut down the sending side."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class TlsPeer:
    """A blocking TLS client on a `Peer`; its first bytes share a segment with what goes `before` them."""

    def __init__(self, peer: Peer, context: ssl.SSLContext, before: bytes = b"") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self._peer = peer
        self._peer.send(before + self._outgoing.read())
        self._run(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._run(lambda: self._tls.write(data))

    def receive(self) -> bytes:
        """What comes next; b"" at the end."""
        try:
            return self._run(lambda: self._tls.read(65536))
        except ssl.SSLZeroReturnError:
            return b""

    def _run(self, operation: Callable[[], _Result]) -> _Result:
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._peer.send(self._outgoing.read())
                if received := self._peer.sock.recv(65536):
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            else:
                self._peer.send(self._outgoing.read())
                return result


@contextlib.asynccontextmanager
async def connected(
    address: Any, *chunks: bytes, **keywords: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A peer with asyncio's streams. It sends the chunks in one piece, before TLS."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else _family(address))
    # Neither call blocks on loopback. The loop's own functions would ask a resolver, on threads that libuv keeps.
    sock.connect(address)
    sock.sendall(b"".join(chunks))
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, **keywords)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def next_refusal(listener: Listener, refusals: list[Refusal]) -> Refusal:
    """Wait for the first refusal that ``on_refused`` appends to `refusals`; nothing must be ready to be accepted."""
    while not refusals:
        assert wait_readable(listener.fileno())
        assert listener.try_accept() is None
    return refusals[0]


def wait_readable(fd: int, timeout: float | None = None) -> bool:
    """Wait until the fd is readable; False if it is not in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that no fd signals, such as a counter. The test's own timeout ends the wait."""
    while not condition():
        os.sched_yield()


async def turn_until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds that no future signals."""
    while not condition():  # noqa: ASYNC110 - nobody could set an event
        await asyncio.sleep(0)


def is_refused(address: Any) -> bool:
    """Whether nobody listens there any more."""
    try:
        Peer(address).sock.close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # It came between the listener's last look at the queue and the end of the socket: the next one is refused.
        return False
    return False


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port on which nothing listens. Programs with `reuse_port` can bind it. No other program gets it meanwhile."""
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield holding.getsockname()[1]


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens. They are not held, for programs that bind them without `reuse_port`."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def make_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for localhost; return a server's context with it and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def _family(address: tuple[Any, ...]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
