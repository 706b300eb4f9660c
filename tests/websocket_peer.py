"""A WebSocket client in one thread.

The client of `websockets.sync` reads in a thread of its own while we write. Over TLS on Python 3.11, 2 of 300 of its
handshakes hung, with a server that has no Listener too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

if TYPE_CHECKING:
    import socket


def ask_websocket(sock: socket.socket, path: str = "/") -> str:
    """Make a WebSocket of a connection, with or without TLS. Send a message, return the one that comes, and close."""
    client = ClientProtocol(parse_uri(f"ws://localhost{path}"))
    client.send_request(client.connect())
    answer: str | None = None
    while answer is None:
        _send(sock, client)
        _receive(sock, client)
        for event in client.events_received():
            if isinstance(event, Response):
                if client.handshake_exc is not None:
                    raise client.handshake_exc
                client.send_text(b"hello")
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                answer = bytes(event.data).decode()
    if client.state is State.OPEN:
        client.send_close(1000)
    # The server may have closed already.
    with contextlib.suppress(OSError):
        _send(sock, client)
        while sock.recv(65536):
            pass
    return answer


def _send(sock: socket.socket, client: ClientProtocol) -> None:
    for data in client.data_to_send():
        sock.sendall(data)


def _receive(sock: socket.socket, client: ClientProtocol) -> None:
    data = sock.recv(65536)
    if not data:
        client.receive_eof()
        raise ConnectionError("the server has closed the connection")
    client.receive_data(data)
