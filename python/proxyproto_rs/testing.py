"""A pytest plugin: clients that connect to your server as if a proxy stood between.

In the topmost ``conftest.py``::

    pytest_plugins = ["proxyproto_rs.testing"]

Typical use::

    def test_the_client_is_greeted_by_address(listener, proxied_client):
        sock = proxied_client(listener, source=("203.0.113.9", 51724), tls={"client_name": "sensor-17"})
        assert sock.recv(100) == b"hello 203.0.113.9"

    async def test_streams(listener, proxied_client):
        async with proxied_client.streams(listener) as (reader, writer):
            ...

pytest loads it only if you name it: the package has no entry point for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls_module
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import pytest

from . import Header

__all__ = ["ProxiedClient", "make_header", "proxied_client"]

SOURCE = ("192.0.2.1", 51724)
DESTINATION = ("198.51.100.1", 443)


@pytest.fixture
def proxied_client() -> Iterator[ProxiedClient]:
    """Connect clients through a pretended proxy (`ProxiedClient`). Their sockets are closed after the test."""
    with ProxiedClient() as client:
        yield client


class ProxiedClient:
    """Connects to a server as a proxy does: it sends a header first.

    Call it to get a connected `socket.socket`. `streams` gives a reader and a writer of asyncio's. Both take the keywords
    of `make_header`, or a whole ``header``. With ``ssl``, a context for clients, TLS follows the header.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> ProxiedClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(
        self,
        address: Any,
        *,
        header: Header | None = None,
        ssl: tls_module.SSLContext | None = None,
        server_hostname: str = "localhost",
        timeout: float | None = 10.0,
        **facts: Any,
    ) -> socket.socket:
        """Connect, and send the header.

        Args:
            address: A `Listener` or another socket that listens, or its address: a host and a port, or the path of a UNIX
                socket.
            header: The header. None sends what `make_header` makes of `facts`.
            ssl: If given, the TLS handshake follows the header.
            server_hostname: The name that the server's certificate must have.
            timeout: The timeout of the socket, in seconds.
            facts: The keywords of `make_header`.

        Raises:
            TypeError: Both `header` and keywords of `make_header` are given.
            OSError: The connection or the handshake failed.
        """
        sock = self._open.enter_context(_connect(address, timeout))
        sock.sendall(_chosen(header, facts).encode())
        if ssl is not None:
            sock = self._open.enter_context(ssl.wrap_socket(sock, server_hostname=server_hostname))
        return sock

    @contextlib.asynccontextmanager
    async def streams(
        self,
        address: Any,
        *,
        header: Header | None = None,
        ssl: tls_module.SSLContext | None = None,
        server_hostname: str = "localhost",
        **facts: Any,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect with asyncio's streams, and send the header. They are closed at the end of the block."""
        sock = _connect(address, None)
        try:
            # The send buffer of a new connection has room for a whole header.
            sock.sendall(_chosen(header, facts).encode())
            sock.setblocking(False)
            security: dict[str, Any] = {} if ssl is None else {"ssl": ssl, "server_hostname": server_hostname}
            reader, writer = await asyncio.open_connection(sock=sock, **security)
        except BaseException:
            sock.close()
            raise
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def make_header(
    *,
    version: int = 2,
    source: Any = SOURCE,
    destination: Any = DESTINATION,
    authority: str | None = None,
    alpn: bytes | None = None,
    unique_id: bytes | None = None,
    tls: bool | Mapping[str, Any] = False,
    tlvs: Iterable[tuple[int, bytes]] = (),
) -> Header:
    """Make a header that says what is given.

    Typical use::

        make_header(source=("203.0.113.9", 51724), authority="shop.example", tls={"client_name": "sensor-17"})

    Args:
        version: 1 or 2. Version 1 has only the addresses.
        source: The client's address, as `Header.v2` takes it.
        destination: The address that the client connected to.
        authority: The name that the client asked for.
        alpn: The protocol that the client has negotiated.
        unique_id: The id of the connection.
        tls: Whether the client uses TLS. Or a mapping with some of the keys ``version``, ``cipher``, ``client_name`` and
            ``verified``, as in `proxyproto_rs.asgi`. A client with a name has a certificate. It is verified unless
            ``verified`` is False.
        tlvs: More TLVs, as (type, value).

    Raises:
        TypeError: `tls` has an unknown key.
        ValueError: The header cannot be sent, such as one of version 1 with a TLV.
    """
    told = [
        (0x01, alpn),
        (0x02, None if authority is None else authority.encode()),
        (0x05, unique_id),
        (0x20, _encode_tls(**({} if tls is True else tls)) if tls else None),
    ]
    all_tlvs = [(kind, value) for kind, value in told if value is not None] + list(tlvs)
    if version == 1:
        if all_tlvs:
            raise ValueError("a header of version 1 has no TLVs")
        return Header.v1(source, destination)
    return Header.v2(source, destination, tlvs=all_tlvs)


def _encode_tls(
    version: str = "TLSv1.3",
    cipher: str | None = None,
    client_name: str | None = None,
    verified: bool | None = None,
) -> bytes:
    """Encode the TLV that HAProxy sends with send-proxy-v2-ssl-cn."""
    has_certificate = client_name is not None or bool(verified)
    is_verified = has_certificate if verified is None else verified
    told = [(0x21, version), (0x22, client_name), (0x23, cipher)]
    inner = b"".join(
        struct.pack("!BH", kind, len(text.encode())) + text.encode()
        for kind, text in told
        if text is not None
    )
    return struct.pack("!BI", 0b111 if has_certificate else 0b001, 0 if is_verified else 1) + inner


def _chosen(header: Header | None, facts: dict[str, Any]) -> Header:
    if header is None:
        return make_header(**facts)
    if facts:
        raise TypeError(f"header= is the whole header: give it or {', '.join(facts)}, not both")
    return header


def _connect(address: Any, timeout: float | None) -> socket.socket:
    if isinstance(address, socket.socket):
        address = address.getsockname()
    if isinstance(address, tuple):
        host, port = address[:2]
        return socket.create_connection((_reachable(host), port), timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _reachable(host: str) -> str:
    """Return an address on which a server that listens on every address can be reached."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound here
