"""The CONNECT packet, decoded strictly (MQTT 3.1.1, section 3.1).

This module works on bytes only, without a clock or a socket. Any input gives a Connect, or raises Refuse with
a reason of the table.
"""

from __future__ import annotations

import secrets

from ..model.login import CLEAN, PASSWORD, PROTOCOL_LEVEL, USERNAME, WILL, WILL_RETAIN, Connect, Will
from ..model.packet_types import CONNECT
from ..model.reasons import Refuse

_RESERVED = 0x01
_MAX_LENGTH_BYTES = 4
_MAX_QOS = 2


def decode_connect(packet: bytes) -> Connect:
    """Decode one whole packet, with its fixed header.

    An empty client id is replaced by ``auto-`` and 16 hex digits, so that all tables use one name.

    Raises:
        Refuse: `malformed-connect`, `protocol-version` or `identifier-rejected`. Any other exception is a
            bug.
    """
    reader = _Reader(packet, length_end(packet))
    _check_protocol(reader)
    flags = reader.byte("the flags")
    keep_alive = reader.uint16("the keep-alive")
    _check_flags(flags)
    client_id = reader.text("the client id")
    will = _will(reader, flags) if flags & WILL else None
    username = reader.text("the user name") if flags & USERNAME else None
    password = reader.binary("the password") if flags & PASSWORD else None
    reader.finish()
    clean = bool(flags & CLEAN)
    if not client_id:
        if not clean:
            raise Refuse("identifier-rejected", "an empty client id needs a clean session")
        client_id = f"auto-{secrets.token_hex(8)}"
    return Connect(client_id, clean, keep_alive, will, username, password)


def connect_length(received: bytes | bytearray, max_size: int) -> int | None:
    """Return the whole length of the CONNECT that begins with `received`; None while it is not known yet.

    Raises Refuse (`malformed-connect`) once no further bytes can make it a CONNECT of at most `max_size`
    bytes.
    """
    if not received:
        return None
    if received[0] != CONNECT << 4:
        raise Refuse("malformed-connect", f"not a CONNECT but {describe(received)}")
    length = 0
    for index in range(1, _MAX_LENGTH_BYTES + 1):
        if index >= len(received):
            return None
        length |= (received[index] & 0x7F) << 7 * (index - 1)
        if not received[index] & 0x80:
            total = index + 1 + length
            if total > max_size:
                raise Refuse("malformed-connect", f"a CONNECT of {total} bytes, at most {max_size} are read")
            return total
    raise Refuse("malformed-connect", "the remaining length has more than 4 bytes")


def starts_with_header(received: bytes | bytearray) -> bool:
    """Whether the bytes begin like a PROXY header of either version."""
    return received.startswith((_V1, _V2))


def describe(received: bytes | bytearray) -> str:
    """Say what a stranger's first bytes look like, and show at most 8 of them in hex."""
    start = bytes(received[:16])
    shown = start[:8].hex(" ")
    for prefix, name in _FIRST_BYTES:
        if start.startswith(prefix):
            return f"{name} ({shown})"
    if start[0] >> 4 in range(1, 15) and not start[:1].isalpha():
        return f"MQTT packet type {start[0] >> 4} ({shown})"
    return f"unknown bytes ({shown})"


def length_end(packet: bytes) -> int:
    """Return where the remaining length of a whole packet ends."""
    end = 1
    while packet[end] & 0x80:
        end += 1
    return end + 1


_V1, _V2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
_PROXY = "a second PROXY header"
_FIRST_BYTES = (
    (_V1, _PROXY),
    (_V2, _PROXY),
    (b"\x16\x03", "a TLS ClientHello, and this port has no TLS"),
    (b"GET ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"CONNECT ", "HTTP"),
    (b"PRI * HTTP/2", "HTTP/2"),
    (b"SSH-", "SSH"),
)  # fmt: skip


class _Reader:
    """Reads typed fields off the packet. A missing or wrong field is a `malformed-connect` that names it."""

    __slots__ = ("_at", "_packet")

    def __init__(self, packet: bytes, at: int) -> None:
        self._packet = packet
        self._at = at

    def byte(self, field: str) -> int:
        return self._take(1, field)[0]

    def uint16(self, field: str) -> int:
        return int.from_bytes(self._take(2, field), "big")

    def binary(self, field: str) -> bytes:
        return self._take(self.uint16(field), field)

    def text(self, field: str) -> str:
        raw = self.binary(field)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Refuse("malformed-connect", f"{field} is not UTF-8") from None
        if "\0" in text:
            raise Refuse("malformed-connect", f"{field} holds a NUL")
        return text

    def skip_properties(self) -> None:
        """Skip the properties, which MQTT 5 puts before the client id with a length of their own."""
        length = shift = 0
        while True:
            digit = self.byte("the properties")
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
            if shift >= 7 * _MAX_LENGTH_BYTES:
                raise Refuse("malformed-connect", "the properties' length has more than 4 bytes")
        self._take(length, "the properties")

    def finish(self) -> None:
        rest = len(self._packet) - self._at
        if rest:
            raise Refuse("malformed-connect", f"{rest} bytes behind the last field")

    def _take(self, size: int, field: str) -> bytes:
        taken = self._packet[self._at : self._at + size]
        if len(taken) < size:
            raise Refuse("malformed-connect", f"the packet ends inside {field}")
        self._at += size
        return taken


def _check_protocol(reader: _Reader) -> None:
    name = reader.binary("the protocol name")
    level = reader.byte("the protocol level")
    if name == b"MQTT" and level == PROTOCOL_LEVEL:
        return
    if name not in (b"MQTT", b"MQIsdp"):
        raise Refuse("malformed-connect", f"the protocol name is {name[:16]!r}")
    shown = {3: "MQTT 3.1", 5: "MQTT 5"}.get(level, f"protocol level {level}")
    raise Refuse("protocol-version", f"{shown}; MQTT 3.1.1 is served", client_id=_foreign_id(reader, level))


def _foreign_id(reader: _Reader, level: int) -> str:
    """Read the client id of a version that is not served, so that the operator can find the device."""
    try:
        reader.byte("the flags")
        reader.uint16("the keep-alive")
        if level == 5:  # noqa: PLR2004 (MQTT 5)
            reader.skip_properties()
        return reader.text("the client id")
    except Refuse:
        return ""


def _check_flags(flags: int) -> None:
    if flags & _RESERVED:
        raise Refuse("malformed-connect", "the reserved flag is set")  # MQTT-3.1.2-3
    qos = flags >> 3 & 3
    if flags & WILL:
        if qos > _MAX_QOS:
            raise Refuse("malformed-connect", "the will has QoS 3")  # MQTT-3.1.2-14
    elif qos or flags & WILL_RETAIN:
        raise Refuse("malformed-connect", "will flags without a will")  # MQTT-3.1.2-11
    if flags & PASSWORD and not flags & USERNAME:
        raise Refuse("malformed-connect", "a password without a user name")  # MQTT-3.1.2-22


def _will(reader: _Reader, flags: int) -> Will:
    topic = reader.text("the will topic")
    message = reader.binary("the will message")
    if not topic or "#" in topic or "+" in topic:
        raise Refuse("malformed-connect", "the will topic is empty or holds a wildcard")
    if topic.startswith("$"):
        # These are the broker's own topics. A client's PUBLISH to them is refused as well.
        raise Refuse("malformed-connect", "the will topic starts with $")
    return Will(topic, message, flags >> 3 & 3, bool(flags & WILL_RETAIN))
