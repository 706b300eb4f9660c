"""What the gateway checks of packets after CONNECT; what passes is exactly what amqtt's own parser takes."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest
from amqtt.adapters import BufferReader
from amqtt.errors import MQTTError
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import MQTTFixedHeader

from proxyproto_rs.mqtt.config import MqttConfig
from proxyproto_rs.mqtt.model.reasons import DISCONNECT_REASONS

from ..peers import DISCONNECT, PINGREQ, WELCOME, connect, dial, log_in, packet, publish, subscribe, text
from .gates import Echo, serving

if TYPE_CHECKING:
    from proxyproto_rs.mqtt import Gate, Link
    from proxyproto_rs.mqtt.model.connection import Address


class Packets(Echo):
    """Keeps the packets that have passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[bytes] = []

    async def carry(self, link: Link) -> None:
        link.welcome()
        link.push(WELCOME)
        self.kept.add(link.connect.client_id)
        while (passed := await link.pull()) is not None:
            self.passed.append(passed)


async def end_of(gate: Gate, address: Address, raw: bytes) -> str | None:
    """Send these bytes in a session, and then the end. Return why it ended."""
    async with log_in(address, connect(clean_session=False)) as client:
        client.send(raw)
        client.writer.write_eof()
        assert await client.end() == b""
    record = gate.sessions.record("dev")
    assert record is not None
    return record.disconnect_reason


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
async def test_fine(raw: bytes) -> None:
    backend = Packets()
    async with serving(backend) as (gate, address):
        reason = await end_of(gate, address, raw + PINGREQ)
    if raw == DISCONNECT:
        assert (reason, backend.passed) == ("disconnect", [])
    else:
        assert (reason, backend.passed) == ("connection-lost", [raw, PINGREQ])


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
async def test_wrong(raw: bytes, reason: str) -> None:
    backend = Packets()
    async with serving(backend) as (gate, address):
        assert await end_of(gate, address, raw) == reason
    assert reason in DISCONNECT_REASONS
    assert backend.passed == []


@pytest.mark.parametrize("first", [0x00, 0x41, 0x80, 0xC1, 0xF0])
async def test_a_wrong_first_byte_is_refused_at_once(first: int) -> None:
    async with serving(Packets()) as (gate, address):
        async with log_in(address, connect(clean_session=False)) as client:
            client.send(bytes((first,)))
            assert await client.end() == b""
        record = gate.sessions.record("dev")
        assert record is not None
        assert record.disconnect_reason == "malformed-packet"


async def test_size_counts_the_whole_packet() -> None:
    raw = publish("a", bytes(200))
    for size, reason in ((len(raw), "connection-lost"), (len(raw) - 1, "packet-too-large")):
        async with serving(Packets(), mqtt=MqttConfig(max_packet_size=size)) as (gate, address):
            assert await end_of(gate, address, raw) == reason
    async with serving(Packets()) as (gate, address):
        assert await end_of(gate, address, b"\x30\x80\x80\x80\x80\x01") == "malformed-packet"


async def test_a_packet_in_single_bytes_comes_whole() -> None:
    backend = Packets()
    raw = publish("a/b", b"x" * 200, 1)
    async with serving(backend) as (gate, address), dial(address, connect().encode()) as client:
        assert await client.packet() == WELCOME
        for byte in raw + PINGREQ:
            client.send(bytes((byte,)))
            await client.writer.drain()
        client.writer.write_eof()
        await client.end()
        del gate
    assert backend.passed == [raw, PINGREQ]


async def test_what_passes_is_what_amqtt_reads_to_its_end() -> None:
    chance = random.Random(12)
    backend = Packets()
    async with serving(backend) as (gate, address):
        for _ in range(400):
            first = chance.choice((chance.randrange(256), 0x30, 0x32, 0x34, 0x82, 0xA2))
            raw = packet(first, body_of(chance))
            before = len(backend.passed)
            reason = await end_of(gate, address, raw)
            assert reason in DISCONNECT_REASONS
            assert backend.passed[before:] in ([], [raw])
    assert len(backend.passed) > 20
    for raw in backend.passed:
        assert await left_by_amqtt(raw) == 0


def body_of(chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(40))
    topic = "".join(chance.choices("abc/+#$é", k=chance.randrange(6)))
    return chance.choice((b"", ID)) + text(topic) + chance.randbytes(chance.randrange(6))


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
