"""Many peers at once, watched by one epoll."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

# A close that resets the connection frees its port at once. So thousands of connections can follow thousands.
_RESET = struct.pack("ii", 1, 0)


class Crowd:
    """Connections that only send. Each counts as open until it sees that the other end has closed it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._open.values():
            sock.close()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._open)

    def connect(self, address: Any, first_bytes: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.bind((source, 0))
        sock.connect(address)
        if first_bytes:
            sock.sendall(first_bytes)
        sock.setblocking(False)
        self._open[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
        return sock

    def watch(self, timeout: float | None = None) -> None:
        """Wait for closed peers, for at most `timeout` seconds, and remove them from the crowd."""
        for fd, _ in self._epoll.poll(timeout):
            sock = self._open.pop(fd)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) == b"", "a refused connection was told something"
            sock.close()

    def watch_all(self) -> None:
        """Wait until all are closed. The test's own timeout limits the wait."""
        while self._open:
            self.watch()

    def leave(self) -> None:
        """Close the rest from this end."""
        for sock in self._open.values():
            sock.close()
        self._open.clear()


def drip(sock: socket.socket, byte: bytes) -> bool:
    """Send one byte. Return False if the other end has closed."""
    try:
        return sock.send(byte) == 1
    except OSError:
        return False


def sources() -> Iterator[str]:
    """Yield addresses of loopback. The first sixteen million all differ."""
    for a, b, c in itertools.product(range(1, 256), range(256), range(1, 255)):
        yield f"127.{a}.{b}.{c}"
