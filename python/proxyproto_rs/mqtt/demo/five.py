"""A client of MQTT 5, in the few packets that the demo needs. amqtt's client speaks 3.1.1 alone."""

from __future__ import annotations

import asyncio
import contextlib

from ..model.login import encode_length

_CONNACK, _PUBLISH, _SUBACK = 2, 3, 9
_ANSWER = 5.0  # seconds


class SubscriberFive:
    """It subscribes once, and receives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, client_id: str, username: str, password: str) -> SubscriberFive:
        """Log in at 127.0.0.1. Raises OSError if the broker does not let it in."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        head = _text("MQTT") + b"\x05\xc2" + (60).to_bytes(2, "big") + b"\0"  # user, password, clean start
        client._send(0x10, head + _text(client_id) + _text(username) + _text(password))
        kind, body = await client._packet()
        if kind != _CONNACK or body[1]:
            raise OSError(f"not let in: {body.hex()}")
        return client

    async def subscribe(self, topic: str) -> None:
        """Subscribe with QoS 0."""
        self._send(0x82, b"\0\1\0" + _text(topic) + b"\0")
        kind, _ = await self._packet()
        if kind != _SUBACK:
            raise OSError(f"packet type {kind} in place of a SUBACK")

    async def receive(self) -> bytes:
        """Wait for a message, and return its payload."""
        while True:
            kind, body = await self._packet()
            if kind == _PUBLISH:
                topic_end = 2 + int.from_bytes(body[:2], "big")
                return body[topic_end + 1 + body[topic_end] :]  # behind the properties, which are short here

    async def close(self) -> None:
        """Say goodbye."""
        self._send(0xE0, b"")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, first: int, body: bytes) -> None:
        self._writer.write(bytes((first,)) + encode_length(len(body)) + body)

    async def _packet(self) -> tuple[int, bytes]:
        return await asyncio.wait_for(self._read(), _ANSWER)

    async def _read(self) -> tuple[int, bytes]:
        first, length = await self._reader.readexactly(2)  # no packet here has more than 127 bytes
        return first >> 4, await self._reader.readexactly(length)


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()
