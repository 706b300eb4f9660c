"""Run as a program: connect in ways that are refused, and write a line when all connections have been closed."""

from __future__ import annotations

import contextlib
import socket
import sys

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 51724 443\r\n"
REFUSED = [
    b"",
    LINE[:20],
    b"GET / HTTP/1.1\r\n\r\n",
    LINE.replace(b"443", b"0443"),
    LINE.replace(b"192", b"203"),
]


def main(port: int, count: int) -> None:
    strangers = []
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(REFUSED[number % len(REFUSED)])
        strangers.append(sock)
    for sock in strangers:
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    sys.stdout.buffer.write(b"refused")


main(int(sys.argv[1]), int(sys.argv[2]))
