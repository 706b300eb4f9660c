"""MQTT in WebSocket messages (MQTT 3.1.1, section 6), on the sans-I/O part of `websockets`.

There is no compression, which takes memory for each client, and no ping of ours, because MQTT has its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from websockets.exceptions import NegotiationError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from ..model.reasons import Refuse
from .connect import describe
from .forwarded import forwarded_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import WebSocketConfig
    from ..model.connection import Connection
    from .client import Client

_MAX_REQUEST = 16 * 1024  # bytes of an upgrade request; browsers send less than 2 KiB
_BAD_REQUEST, _NOT_FOUND, _FORBIDDEN = 400, 404, 403

# The library logs an ERROR for every stray connection, without a useful address. Our own lines have it.
_library_log = logging.getLogger("proxyproto_rs.mqtt.websockets")
_library_log.setLevel(logging.CRITICAL)


class WebSocket:
    """Implements `wire.Codec` once the upgrade has been accepted."""

    __slots__ = ("_protocol", "broken", "over")

    def __init__(self, options: WebSocketConfig, max_size: int) -> None:
        origins = options.origins
        self._protocol = ServerProtocol(
            origins=None if origins is None else [Origin(origin) for origin in origins],
            subprotocols=[Subprotocol(name) for name in options.subprotocols],
            max_size=max_size,
            logger=_library_log,
        )
        self.over: bool = False
        self.broken: str | None = None
        """Why the session must end, if the peer broke a rule of this layer."""

    def request(self, data: bytes) -> Request | None:
        """Add bytes of the upgrade request. Return the request once it is whole. Raises Refuse (`ws-failed`)."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                return event
        if (wrong := self._protocol.handshake_exc) is not None:
            raise Refuse("ws-failed", f"not an upgrade request: {wrong.__cause__ or wrong}")
        return None

    def accept(self, request: Request) -> bytes:
        """Accept an upgrade, and return the answer. Raises Refuse (`ws-failed`); `replies` then has the rejection."""
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if (wrong := self._protocol.handshake_exc) is not None:
            raise Refuse("ws-failed", _why(wrong, response.status_code))
        return self.replies()

    def reject(self, status: int, text: str) -> None:
        """Reject the upgrade. `replies` then has the answer."""
        self._protocol.send_response(self._protocol.reject(status, text + "\n"))

    # These implement wire.Codec.

    def decode(self, data: bytes) -> bytes:
        """Return the payload of the binary messages in `data`, with their fragments."""
        if self.over:
            return b""
        self._protocol.receive_data(data)
        payload = bytearray()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event, payload)
        if self._protocol.state is not OPEN:
            self.over = True
            sent = self._protocol.close_sent
            if self.broken is None and sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
                self.broken = "packet-too-large"
        return bytes(payload)

    def replies(self) -> bytes:
        """Return what the library wants to send: pongs, and the answer to a close."""
        return b"".join(self._protocol.data_to_send())

    def encode(self, data: bytes) -> bytes:
        """Return one packet as one binary message."""
        if self._protocol.state is not OPEN:
            return b""
        self._protocol.send_binary(data)
        return self.replies()

    def close(self) -> bytes:
        """Return a close frame, or what is left to send."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        return self.replies()

    def _take(self, frame: Frame, payload: bytearray) -> None:
        if frame.opcode is Opcode.TEXT and self.broken is None:
            self.broken = "malformed-packet"  # MQTT-6.0.0-1
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT needs binary messages")
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT) and self.broken is None:
            payload += frame.data


async def open_websocket(
    client: Client, options: WebSocketConfig, max_size: int, address_known: Callable[[Client], None]
) -> None:
    """Answer the upgrade, and put the codec between the transport and the buffer.

    A trusted X-Forwarded-For changes the client address of the connection. Before the answer, `address_known`
    is called; it may raise Refuse.

    Raises:
        Refuse: `ws-failed`, `closed-early`, or what `address_known` raises.
    """
    socket, wire = WebSocket(options, max_size), client.wire
    try:
        request = await _read_request(client, socket)
        if request.path.partition("?")[0] != options.path:
            socket.reject(_NOT_FOUND, "no MQTT here")
            raise Refuse("ws-failed", f"path {request.path[:100]!r}, MQTT is at {options.path}")
        if options.forwarded is not None:
            _believe_forwarded(socket, request, client.connection, options)
        address_known(client)
        answer = socket.accept(request)
    except Refuse:
        if answer := socket.replies():
            wire.write(answer)
        raise
    wire.write(answer)
    wire.switch(socket)


async def _read_request(client: Client, socket: WebSocket) -> Request:
    wire, read = client.wire, 0
    while True:
        if wire.buffer:
            if not read:
                client.refuse_header()
            if not read and not wire.buffer[:1].isalpha():
                raise Refuse("ws-failed", f"not an upgrade request but {describe(wire.buffer)}")
            read += len(wire.buffer)
            if read > _MAX_REQUEST:
                raise Refuse("ws-failed", f"the upgrade request has more than {_MAX_REQUEST} bytes")
            if (request := socket.request(wire.take(len(wire.buffer)))) is not None:
                return request
        if wire.eof:
            raise Refuse(
                "ws-failed" if read else "closed-early", "closed before the upgrade request was whole"
            )
        await client.more()


def _believe_forwarded(
    socket: WebSocket, request: Request, connection: Connection, options: WebSocketConfig
) -> None:
    assert options.forwarded is not None
    headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
    try:
        client = forwarded_client(connection.client[0], headers, options.forwarded)
    except ValueError as wrong:
        socket.reject(_BAD_REQUEST, "bad forwarding header")
        raise Refuse("ws-failed", str(wrong)) from None
    if client is not None:
        connection.proxy = connection.client
        connection.client = (client, 0)
        connection.address_source = "forwarded"


def _why(wrong: Exception, status: int) -> str:
    if isinstance(wrong, NegotiationError):
        return "the client offers no sub-protocol that is served (mqtt)"
    if status == _FORBIDDEN:
        return f"origin: {wrong}"
    return str(wrong)
