"""The packets after CONNECT: where one ends, and whether a client may send it (MQTT 3.1.1, chapters 2 and 3).

The backend's parser never sees an incomplete packet, nor one whose inner lengths contradict the outer one.
"""

from __future__ import annotations

from ..model.packet_types import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)

_FLAGS = {
    PUBACK: 0,
    PUBREC: 0,
    PUBREL: 2,
    PUBCOMP: 0,
    SUBSCRIBE: 2,
    UNSUBSCRIBE: 2,
    PINGREQ: 0,
    DISCONNECT: 0,
}
_FIRST_BYTES = frozenset(
    {PUBLISH << 4 | flags for flags in range(16)} | {kind << 4 | flags for kind, flags in _FLAGS.items()}
)
_MAX_LENGTH_BYTES = 4
_MAX_QOS = 2


class PacketError(Exception):
    """A packet that ends the session. `reason` is one of `reasons.DISCONNECT_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def packet_length(received: bytes | bytearray, max_size: int) -> int | None:
    """Return the length in bytes of the packet that `received` begins with; None while it is not known yet.

    Raises PacketError (`malformed-packet`, `packet-too-large`, `second-connect`) at the first wrong byte.
    """
    if received and received[0] not in _FIRST_BYTES:
        raise PacketError(*_wrong_first_byte(received[0]))
    length = 0
    for index in range(1, min(len(received), _MAX_LENGTH_BYTES + 1)):
        digit = received[index]
        length |= (digit & 0x7F) << 7 * (index - 1)
        if not digit & 0x80:
            total = index + 1 + length
            if total > max_size:
                raise PacketError("packet-too-large", f"{total} bytes, at most {max_size} are read")
            return total
    if len(received) > _MAX_LENGTH_BYTES:
        raise PacketError("malformed-packet", "the remaining length has more than 4 bytes")
    return None


def check_packet(packet: bytes) -> int:
    """Check one whole packet of the length that `packet_length` gave. Return its type (3 is PUBLISH).

    Raises PacketError (`malformed-packet`, `bad-topic`).
    """
    kind, flags = packet[0] >> 4, packet[0] & 0x0F
    at = 2
    while packet[at - 1] & 0x80:
        at += 1
    if kind == PUBLISH:
        _check_publish(packet, at, flags)
        return kind
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        _check_filters(packet, at, with_qos=kind == SUBSCRIBE)
    elif kind in (PINGREQ, DISCONNECT):
        if at != len(packet):
            raise PacketError("malformed-packet", f"packet type {kind} with a body")
    elif len(packet) != at + 2 or not packet[at] | packet[at + 1]:
        raise PacketError("malformed-packet", f"packet type {kind} without exactly one packet id")
    return kind


def _wrong_first_byte(byte: int) -> tuple[str, str]:
    kind, flags = byte >> 4, byte & 0x0F
    if byte == CONNECT << 4:
        return "second-connect", "a CONNECT in an open session"  # MQTT-3.1.0-2
    if kind in _FLAGS:
        return "malformed-packet", f"packet type {kind} with flags {flags:#x}"  # MQTT-2.2.2-2
    return "malformed-packet", f"packet type {kind} is not for clients to send"


def _check_publish(packet: bytes, at: int, flags: int) -> None:
    qos = flags >> 1 & 3
    if qos > _MAX_QOS:
        raise PacketError("malformed-packet", "PUBLISH with QoS 3")  # MQTT-3.3.1-4
    if not qos and flags & 0x08:
        raise PacketError("malformed-packet", "PUBLISH with DUP and QoS 0")  # MQTT-3.3.1-2
    topic, at = _text(packet, at, "topic")
    if "#" in topic or "+" in topic:
        raise PacketError("bad-topic", "a wildcard in a PUBLISH")  # MQTT-3.3.2-2
    if topic.startswith("$"):
        raise PacketError("bad-topic", "topics with $ are the broker's own")  # MQTT-4.7.2-1
    if qos:
        _check_id(packet, at)


def _check_filters(packet: bytes, at: int, *, with_qos: bool) -> None:
    _check_id(packet, at)
    at += 2
    if at == len(packet):
        raise PacketError("malformed-packet", "no topic filter")  # MQTT-3.8.3-3, MQTT-3.10.3-2
    while at < len(packet):
        _, at = _text(packet, at, "topic filter")
        if with_qos:
            if at == len(packet) or packet[at] > _MAX_QOS:
                raise PacketError(
                    "malformed-packet", "a topic filter without a QoS of 0 to 2"
                )  # MQTT-3-8.3-4
            at += 1


def _check_id(packet: bytes, at: int) -> None:
    if len(packet) < at + 2 or not packet[at] | packet[at + 1]:
        raise PacketError("malformed-packet", "no packet id, or packet id 0")  # MQTT-2.3.1-1


def _text(packet: bytes, at: int, what: str) -> tuple[str, int]:
    start = at + 2
    end = start + int.from_bytes(packet[at:start], "big")
    if start > len(packet) or end > len(packet):
        raise PacketError("malformed-packet", f"the packet ends inside the {what}")
    try:
        text = packet[start:end].decode("utf-8")
    except UnicodeDecodeError:
        raise PacketError("malformed-packet", f"the {what} is not UTF-8") from None  # MQTT-1.5.3-1
    if not text or "\0" in text:
        raise PacketError("malformed-packet", f"the {what} is empty or holds a NUL")  # MQTT-4.7.3-1, -2
    return text, end
