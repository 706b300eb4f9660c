"""A server of MQTT in a few lines: it reads a PROXY header and a CONNECT, and answers as the test says."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading

from mqtt.peers import DISCONNECT, WAIT, WELCOME
from proxyproto_rs import Header, IncompleteHeader, parse


class Server:
    """A server that answers each CONNECT as the test says, and keeps what it got."""

    def __init__(self, answer: bytes = WELCOME) -> None:
        self.answer = answer
        self.headers: list[Header] = []
        self.connects: list[bytes] = []
        self.received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        """What has come in sessions, in pieces as they came."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.ended = threading.Semaphore(0)
        """One more for each session whose end the server has seen."""
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(WAIT)
        for connection in self._connections:
            connection.close()

    def close_sessions(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                with contextlib.suppress(ConnectionError):  # a check may reset its connection
                    self._greet(connection)

    def _greet(self, connection: socket.socket) -> None:
        received = b""
        while True:
            chunk = connection.recv(65536)
            if not chunk:
                return  # a check
            received += chunk
            with contextlib.suppress(IncompleteHeader):
                header, size = parse(received)
                if len(received) > size + 1 and len(received) == size + 2 + received[size + 1]:
                    break
        self.headers.append(header)
        self.connects.append(received[size:])
        connection.sendall(self.answer)
        threading.Thread(target=self._until_it_ends, args=(connection,), daemon=True).start()

    def _until_it_ends(self, connection: socket.socket) -> None:
        """Close the connection after a DISCONNECT, as brokers do."""
        with contextlib.suppress(OSError):
            while (received := connection.recv(65536)) and not received.endswith(DISCONNECT):
                self.received.put(received)
            connection.shutdown(socket.SHUT_RDWR)
        self.ended.release()
