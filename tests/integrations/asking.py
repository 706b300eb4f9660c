"""Clients behind a proxy that speak HTTP and WebSocket: each sends a header, then asks."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect as connect_websocket

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
    """A connection that has begun with this header."""
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
    """One that is kept alive: any number of requests, and then a WebSocket."""

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

    def ask_websocket(self, target: str = "/") -> Any:
        """Send a message and receive one."""
        # TLS, if there is to be any, is there already.
        with connect_websocket(f"ws://localhost{target}", sock=self._sock, proxy=None) as websocket:
            websocket.send("hello")
            return websocket.recv(_PATIENCE)


def get(listener: socket.socket, header: bytes = WITH_TLS.raw, target: str = "/") -> str:
    """Send one request on a connection of its own; return the body of the answer."""
    with connection(listener, header) as proxied:
        return proxied.get(target)


def ask_websocket(listener: socket.socket, header: bytes = WITH_TLS.raw) -> Any:
    """Send one message on a connection of its own; return the answer."""
    with connection(listener, header) as proxied:
        return proxied.ask_websocket()
