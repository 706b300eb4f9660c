"""Framing and checking of packets after CONNECT; what passes is exactly what amqtt's own parser takes."""

from __future__ import annotations

import asyncio
import struct

import pytest
from amqtt.adapters import BufferReader
from amqtt.errors import MQTTError
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import MQTTFixedHeader
from hypothesis import given
from hypothesis import strategies as st

from proxyproto_rs.mqtt.front.packets import PacketError, check_packet, packet_length
from proxyproto_rs.mqtt.model.reasons import DISCONNECT_REASONS

from ..peers import DISCONNECT, PINGREQ, packet, publish, subscribe, text

ID = b"\x00\x07"
FINE = [
    ("publish", publish("a/b", b"x")),
    ("publish-empty", publish("a")),
    ("publish-qos-1", publish("a", b"x", 1)),
    ("publish-qos-2-dup", bytes((0x3D,)) + publish("a", b"x", 2)[1:]),
    ("puback", packet(0x40, ID)),
    ("pubrec", packet(0x50, ID)),
    ("pubrel", packet(0x62, ID)),
    ("pubcomp", packet(0x70, ID)),
    ("subscribe", subscribe("a/#", "+", qos=2)),
    ("unsubscribe", packet(0xA2, ID + text("a"))),
    ("pingreq", PINGREQ),
    ("disconnect", DISCONNECT),
]


@pytest.mark.parametrize("raw", [row[1] for row in FINE], ids=[row[0] for row in FINE])
def test_fine(raw: bytes) -> None:
    assert packet_length(raw, 1000) == len(raw)
    assert packet_length(raw + b"\xff", 1000) == len(raw)
    assert check_packet(raw) == raw[0] >> 4
    assert packet_length(raw[:1], 1000) is None


WRONG = [
    ("MQTT-2.2.2-2-ping", b"\xc1\x00", "malformed-packet"),
    ("MQTT-2.2.2-2-subscribe", bytes((0x80,)) + subscribe("a")[1:], "malformed-packet"),
    ("MQTT-2.2.2-2-pubrel", packet(0x60, ID), "malformed-packet"),
    ("MQTT-2.3.1-1-publish", publish("a", b"", 1, 0), "malformed-packet"),
    ("MQTT-2.3.1-1-subscribe", subscribe("a", packet_id=0), "malformed-packet"),
    ("MQTT-3.1.0-2", b"\x10\x00", "second-connect"),
    ("MQTT-3.3.1-2", bytes((0x38,)) + publish("a")[1:], "malformed-packet"),
    ("MQTT-3.3.1-4", publish("a", b"", 3), "malformed-packet"),
    ("MQTT-3.3.2-1", publish("", b"x"), "malformed-packet"),
    ("MQTT-3.3.2-2-hash", publish("a/#"), "bad-topic"),
    ("MQTT-3.3.2-2-plus", publish("a/+/b"), "bad-topic"),
    ("MQTT-4.7.2-1", publish("$SYS/a"), "bad-topic"),
    ("MQTT-3.8.3-3", packet(0x82, ID), "malformed-packet"),
    ("MQTT-3.8.3-4", subscribe("a", qos=3), "malformed-packet"),
    ("MQTT-3.10.3-2", packet(0xA2, ID), "malformed-packet"),
    ("MQTT-1.5.3-1", packet(0x30, text(b"\xff")), "malformed-packet"),
    ("MQTT-1.5.3-2", packet(0x30, text("a\0")), "malformed-packet"),
    ("MQTT-4.7.3-1", subscribe(""), "malformed-packet"),
    ("short-topic", packet(0x30, b"\x00\x09ab"), "malformed-packet"),
    ("short-length", packet(0x30, b"\x00"), "malformed-packet"),
    ("no-id", packet(0x32, text("a")), "malformed-packet"),
    ("half-filter", packet(0x82, ID + b"\x00\x02a"), "malformed-packet"),
    ("no-qos", packet(0x82, ID + text("a")), "malformed-packet"),
    ("ping-with-body", packet(0xC0, b"x"), "malformed-packet"),
    ("disconnect-with-body", packet(0xE0, b"x"), "malformed-packet"),
    ("puback-too-long", packet(0x40, ID + b"x"), "malformed-packet"),
    ("puback-too-short", packet(0x40, b"x"), "malformed-packet"),
    ("reserved-0", b"\x00\x00", "malformed-packet"),
    ("reserved-15", b"\xf0\x00", "malformed-packet"),
    *((f"server-only-{kind}", packet(kind << 4, ID), "malformed-packet") for kind in (2, 9, 11, 13)),
]


@pytest.mark.parametrize(("raw", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong(raw: bytes, reason: str) -> None:
    with pytest.raises(PacketError) as wrong:
        judge(raw)
    assert wrong.value.reason == reason
    assert reason in DISCONNECT_REASONS


@pytest.mark.parametrize("first", [0x00, 0x41, 0x80, 0xC1, 0xF0])
def test_a_wrong_first_byte_is_refused_at_once(first: int) -> None:
    with pytest.raises(PacketError):
        packet_length(bytes((first,)), 1000)


def test_size_counts_the_whole_packet() -> None:
    raw = publish("a", bytes(200))
    assert packet_length(raw[:3], len(raw)) == len(raw)
    with pytest.raises(PacketError, match="at most") as wrong:
        packet_length(raw[:3], len(raw) - 1)
    assert wrong.value.reason == "packet-too-large"
    with pytest.raises(PacketError, match="more than 4 bytes"):
        packet_length(b"\x30\x80\x80\x80\x80\x01", 1000)


def judge(raw: bytes) -> int:
    size = packet_length(raw, 1 << 20)
    assert size == len(raw)
    return check_packet(raw)


bodies = st.binary(max_size=40) | st.builds(
    lambda head, topic, rest: head + text(topic) + rest,
    st.sampled_from([b"", ID]),
    st.text("abc/+#$é", max_size=5),
    st.binary(max_size=6),
)


@given(st.integers(0, 255), bodies)
def test_what_passes_is_what_amqtt_reads_to_its_end(first: int, body: bytes) -> None:
    raw = packet(first, body)
    try:
        kind = judge(raw)
    except PacketError as wrong:
        DISCONNECT_REASONS.index(wrong.reason)
        return
    assert kind == first >> 4
    assert asyncio.run(left_by_amqtt(raw)) == 0


async def left_by_amqtt(raw: bytes) -> int:
    """Return how many bytes amqtt's parser leaves. It must not ask for more than there are."""
    reader = BufferReader(raw + struct.pack("!I", 0xDEADBEEF))
    header = await MQTTFixedHeader.from_stream(reader)
    assert header is not None
    try:
        await packet_class(header).from_stream(reader, fixed_header=header)
    except MQTTError as wrong:
        raise AssertionError(f"amqtt refuses {raw.hex()}") from wrong
    return len(await reader.read()) - 4
