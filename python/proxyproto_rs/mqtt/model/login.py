"""What a client says about itself: its CONNECT, and what the rules see of somebody who wants to come in."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, Protocol

from .connection import Connection
from .packet_types import CONNECT

MqttVersion = Literal["MQTT_3_1", "MQTT_3_1_1", "MQTT_5"]
"""The version, as TBMQ writes it."""

NO_EXPIRY = 0xFFFF_FFFF
"""The session expiry interval of a session that is kept for ever (MQTT 5, section 3.1.2.11.2)."""

PROTOCOL_LEVEL = 4
"""MQTT 3.1.1."""

CLEAN, WILL, WILL_RETAIN, PASSWORD, USERNAME = 0x02, 0x04, 0x20, 0x40, 0x80
"""The bits of the flags."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker must publish if the client goes without DISCONNECT."""

    topic: str
    message: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """A valid CONNECT of MQTT 3.1.1."""

    client_id: str
    clean_session: bool
    keep_alive: int
    """Seconds. 0 means off."""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None

    @property
    def mqtt_version(self) -> MqttVersion:
        """MQTT 3.1.1, as TBMQ writes it."""
        return "MQTT_3_1_1"

    @property
    def session_expiry(self) -> int | None:
        """0: the session ends with the connection. None: the broker keeps it as long as it wants."""
        return 0 if self.clean_session else None

    def encode(self) -> bytes:
        """Encode the packet. A decoded one gives the bytes it came from, except for a client id that we chose."""
        flags = CLEAN if self.clean_session else 0
        payload = [_text(self.client_id)]
        if self.will is not None:
            flags |= WILL | self.will.qos << 3 | (WILL_RETAIN if self.will.retain else 0)
            payload += [_text(self.will.topic), _binary(self.will.message)]
        if self.username is not None:
            flags |= USERNAME
            payload.append(_text(self.username))
        if self.password is not None:
            flags |= PASSWORD
            payload.append(_binary(self.password))
        head = b"\x00\x04MQTT" + struct.pack("!BBH", PROTOCOL_LEVEL, flags, self.keep_alive)
        body = head + b"".join(payload)
        return bytes((CONNECT << 4,)) + encode_length(len(body)) + body


class Said(Protocol):
    """What a CONNECT of any version says."""

    @property
    def mqtt_version(self) -> MqttVersion:
        """The version, as TBMQ writes it."""

    @property
    def client_id(self) -> str:
        """The client id."""

    @property
    def clean_session(self) -> bool:
        """Whether an earlier session of this client id ends."""

    @property
    def keep_alive(self) -> int:
        """Seconds. 0 means off."""

    @property
    def session_expiry(self) -> int | None:
        """How long the session is kept after its connection, in seconds; None leaves it to the broker."""

    @property
    def username(self) -> str | None:
        """The user name."""

    @property
    def password(self) -> bytes | None:
        """The password."""


class Login(Protocol):
    """A client that wants to come in, as the rules see it."""

    connection: Connection
    username: str | None
    """The user name of the CONNECT, or the name in the client's certificate."""

    @property
    def connect(self) -> Said:
        """Its CONNECT."""


def encode_length(length: int) -> bytes:
    """Encode a remaining length, 7 bits in each byte (section 2.2.3)."""
    encoded = bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        if not length:
            encoded.append(digit)
            return bytes(encoded)
        encoded.append(digit | 0x80)


def _binary(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _text(text: str) -> bytes:
    return _binary(text.encode())
