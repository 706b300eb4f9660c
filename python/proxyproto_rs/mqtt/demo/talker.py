"""A client of MQTT 3.1.1 or 5, in the few packets that the demo needs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from ..model.login import encode_length

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_ANSWER = 5.0  # seconds
_NO_PROPERTIES = b"\0"


class Talker:
    """Logs in, subscribes, publishes and receives, one after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: Literal["3.1.1", "5"]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._properties = _NO_PROPERTIES if version == "5" else b""

    @classmethod
    async def connect(
        cls, port: int, client_id: str, username: str, password: str, version: Literal["3.1.1", "5"]
    ) -> Talker:
        """Log in at 127.0.0.1. Raises OSError if the broker does not let it in."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port), version)
        level = 5 if version == "5" else 4
        head = _text("MQTT") + bytes((level, 0xC2)) + (60).to_bytes(2, "big")  # user, password, clean start
        client._send(0x10, head + client._properties + _text(client_id) + _text(username) + _text(password))
        body = await client._answer(_CONNACK)
        if body[1]:
            raise OSError(f"not let in: {body.hex()}")
        return client

    async def subscribe(self, topic: str) -> None:
        """Subscribe with QoS 0."""
        self._send(0x82, b"\0\1" + self._properties + _text(topic) + b"\0")
        await self._answer(_SUBACK)

    async def publish(self, topic: str, message: bytes) -> None:
        """Publish with QoS 1, and wait for the answer."""
        self._send(0x32, _text(topic) + b"\0\1" + self._properties + message)
        await self._answer(_PUBACK)

    async def receive(self) -> bytes:
        """Wait for a message, and return its payload."""
        body = await self._answer(_PUBLISH)
        topic_end = 2 + int.from_bytes(body[:2], "big")
        if not self._properties:
            return body[topic_end:]
        return body[topic_end + 1 + body[topic_end] :]  # behind the properties, which are short here

    async def close(self) -> None:
        """Say goodbye."""
        self._send(0xE0, b"")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, first: int, body: bytes) -> None:
        self._writer.write(bytes((first,)) + encode_length(len(body)) + body)

    async def _answer(self, kind: int) -> bytes:
        first, body = await asyncio.wait_for(self._read(), _ANSWER)
        if first >> 4 != kind:
            raise OSError(f"packet type {first >> 4} in place of {kind}")
        return body

    async def _read(self) -> tuple[int, bytes]:
        first, length = await self._reader.readexactly(2)  # no packet here has more than 127 bytes
        return first, await self._reader.readexactly(length)


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()
