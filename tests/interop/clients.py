"""Clients behind a proxy: each sends a header, asks its question, and returns the answer."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING, Any

from proxyproto_rs import Header, create_connection
from websocket_peer import ask_websocket

if TYPE_CHECKING:
    import ssl

CLIENT = ("192.0.2.1", 51000)
HEADER = Header.v2(CLIENT, ("198.51.100.1", 443), tlvs=[(0x02, b"shop.example")])

# Every example of docs/ answers this to this client.
ANSWER = "192.0.2.1 shop.example\n"

_PATIENCE = 10.0
SERVER_NAME = "localhost"


def ask_in_lines(address: Any, tls: ssl.SSLContext | None) -> str:
    """Send a line and read one, twice: this shows that the connection goes on."""
    with _connect(address, tls) as sock, sock.makefile("rw", newline="\n") as lines:
        answers = []
        for _ in range(2):
            lines.write("hello\n")
            lines.flush()
            answers.append(lines.readline())
        assert answers[0] == answers[1]
        return answers[0]


def ask_in_http(address: Any, tls: ssl.SSLContext | None) -> str:
    """Get ``/``."""
    connection = http.client.HTTPConnection(SERVER_NAME)
    connection.sock = _connect(address, tls)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def ask_in_websocket(address: Any, tls: ssl.SSLContext | None) -> str:
    """Send a message and receive one."""
    with _connect(address, tls) as sock:
        return ask_websocket(sock)


def _connect(address: Any, tls: ssl.SSLContext | None) -> socket.socket:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_PATIENCE)
        sock.connect(address)
        sock.sendall(HEADER.raw)
    else:
        sock = create_connection(address, _PATIENCE, header=HEADER)
    if tls is None:
        return sock
    try:
        return tls.wrap_socket(sock, server_hostname=SERVER_NAME)
    except BaseException:
        sock.close()
        raise
