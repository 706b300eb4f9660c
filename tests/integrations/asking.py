"""Clients behind a proxy that speak HTTP and WebSocket: each sends a header, then asks."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
from typing import TYPE_CHECKING

import websocket_peer
from peers import CLIENT, SERVER
from proxyproto_rs import Header

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


_PATIENCE = 20.0


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


# A client that came over TLS with a certificate, which the proxy has verified.
TLVS = [
    (0x01, b"h2"),
    (0x02, b"shop.example"),
    (0x05, b"id-1"),
    (
        0x20,
        bytes([0b111])
        + struct.pack("!I", 0)
        + _tlv(0x21, b"TLSv1.3")
        + _tlv(0x22, b"sensor-17")
        + _tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
    ),
]
WITH_TLS = Header.v2(CLIENT, SERVER, tlvs=TLVS)


@contextlib.contextmanager
def connection(
    listener: socket.socket, header: bytes = WITH_TLS.raw, tls: ssl.SSLContext | None = None
) -> Iterator[Connection]:
    """Connect and send the header; begin TLS if there is a context."""
    address = listener.getsockname()
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(address)
        sock.sendall(header)
        if tls is None:
            yield Connection(sock)
        else:
            with tls.wrap_socket(sock, server_hostname="localhost") as secure:
                yield Connection(secure)


class Connection:
    """A connection that is kept alive, for any number of requests and one WebSocket after them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._http = http.client.HTTPConnection("localhost")
        self._http.sock = sock

    def get(self, target: str = "/", **headers: str) -> str:
        """Send a request; return the body of the answer."""
        self._http.request("GET", target, headers=headers)
        response = self._http.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return body

    def ask_websocket(self, path: str = "/") -> str:
        """Send a message and receive one."""
        return websocket_peer.ask_websocket(self._sock, path)


def get(listener: socket.socket, header: bytes = WITH_TLS.raw, target: str = "/") -> str:
    """Send one request on a connection of its own; return the body of the answer."""
    with connection(listener, header) as proxied:
        return proxied.get(target)


def ask_websocket(listener: socket.socket, header: bytes = WITH_TLS.raw) -> str:
    """Send one message on a connection of its own; return the answer."""
    with connection(listener, header) as proxied:
        return proxied.ask_websocket()
