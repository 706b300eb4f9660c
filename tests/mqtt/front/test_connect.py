"""The CONNECT in front of amqtt: a table over the rules of MQTT 3.1.1, and paho's encoder."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from proxyproto_rs.mqtt.model.login import Connect, Will
from proxyproto_rs.mqtt.model.reasons import REASONS, Refuse

from ..peers import connack, dial, packet, text
from .gates import Echo, Refusals, serving

if TYPE_CHECKING:
    from proxyproto_rs.mqtt import Link, RefusedClient


class Connects(Echo):
    """Keeps what has been decoded, and lets nobody in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Connect] = []

    async def authenticate(self, link: Link) -> None:
        self.seen.append(link.connect)
        raise Refuse("bad-credentials", "seen")


async def decoded(*packets: bytes) -> list[Connect]:
    """Return what the backend sees of CONNECT packets, each of a client of its own."""
    backend = Connects()
    async with serving(backend) as (_, address):
        for raw in packets:
            async with dial(address, raw) as client:
                assert await client.packet() == connack(5)
    return backend.seen


async def refused(raw: bytes) -> tuple[RefusedClient, bytes]:
    """Return what the observer is told of a CONNECT, and the answer."""
    observer = Refusals()
    async with serving(Connects(), observer=observer) as (_, address), dial(address, raw) as client:
        answer = await client.packet()
        assert await client.end() == b""
    (told,) = observer.seen
    return told, answer


HEAD = b"\x00\x04MQTT\x04"


def body(flags: int, *fields: bytes, head: bytes = HEAD, keep_alive: int = 60) -> bytes:
    return packet(0x10, head + struct.pack("!BH", flags, keep_alive) + b"".join(fields))


ACCEPTED = [
    ("clean", body(0x02, text("dev")), Connect("dev", True, 60)),
    ("kept", body(0x00, text("dev"), keep_alive=0), Connect("dev", False, 0)),
    ("user", body(0x82, text("dev"), text("u")), Connect("dev", True, 60, username="u")),
    ("empty-user", body(0x82, text("dev"), text("")), Connect("dev", True, 60, username="")),
    (
        "binary-password",
        body(0xC2, text("dev"), text("u"), text(b"\xff\x00")),
        Connect("dev", True, 60, username="u", password=b"\xff\x00"),
    ),
    (
        "will",
        body(0x36, text("dev"), text("a/b"), text(b"\x00")),
        Connect("dev", True, 60, Will("a/b", b"\x00", 2, True)),
    ),
    ("unicode", body(0x02, text("gerät-\U0001f600")), Connect("gerät-\U0001f600", True, 60)),
]


@pytest.mark.parametrize(("raw", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
async def test_valid(raw: bytes, expected: Connect) -> None:
    assert await decoded(raw) == [expected]
    assert expected.encode() == raw


async def test_an_empty_client_id_gets_one_name_for_all() -> None:
    first, second = await decoded(body(0x02, text("")), body(0x02, text("")))
    assert first.client_id.startswith("auto-")
    assert len(first.client_id) == len("auto-") + 16
    assert first.client_id != second.client_id
    assert await decoded(first.encode()) == [first]


REFUSED = [
    (
        "MQTT-3.1.2-1-name",
        body(0x02, text("d"), head=b"\x00\x04MQTX\x04"),
        "malformed-connect",
        "protocol name",
    ),
    (
        "MQTT-3.1.2-2-v3.1",
        body(0x02, text("old"), head=b"\x00\x06MQIsdp\x03"),
        "protocol-version",
        "MQTT 3.1;",
    ),
    (
        "MQTT-3.1.2-2-v5",
        body(0x02, b"\x00", text("new"), head=b"\x00\x04MQTT\x05"),
        "protocol-version",
        "MQTT 5;",
    ),
    ("MQTT-3.1.2-2-bridge", body(0x02, text("b"), head=b"\x00\x04MQTT\x84"), "protocol-version", "level 132"),
    ("MQTT-3.1.2-3", body(0x03, text("dev")), "malformed-connect", "reserved flag"),
    ("MQTT-3.1.2-11-qos", body(0x0A, text("dev")), "malformed-connect", "without a will"),
    ("MQTT-3.1.2-11-retain", body(0x22, text("dev")), "malformed-connect", "without a will"),
    ("MQTT-3.1.2-14", body(0x1E, text("dev"), text("a"), text("")), "malformed-connect", "QoS 3"),
    ("MQTT-3.1.2-22", body(0x42, text("dev"), text("p")), "malformed-connect", "without a user name"),
    ("MQTT-3.1.3-1-id", body(0x02), "malformed-connect", "ends inside the client id"),
    ("MQTT-3.1.3-1-will", body(0x06, text("dev")), "malformed-connect", "ends inside the will topic"),
    ("MQTT-3.1.3-1-rest", body(0x02, text("dev"), b"x"), "malformed-connect", "1 bytes behind"),
    ("MQTT-3.1.3-4", body(0x02, text(b"\xff")), "malformed-connect", "client id is not UTF-8"),
    ("MQTT-3.1.3-8", body(0x00, text("")), "identifier-rejected", "clean session"),
    ("MQTT-3.1.3-10", body(0x06, text("dev"), text(b"\xc0\x80"), text("")), "malformed-connect", "not UTF-8"),
    ("MQTT-3.1.3-11", body(0x82, text("dev"), text(b"\xed\xa0\x80")), "malformed-connect", "not UTF-8"),
    ("MQTT-1.5.3-2", body(0x02, text("d\0v")), "malformed-connect", "NUL"),
    ("MQTT-4.7.1-1", body(0x06, text("dev"), text("a/#"), text("")), "malformed-connect", "wildcard"),
    ("MQTT-4.7.3-1", body(0x06, text("dev"), text(""), text("")), "malformed-connect", "empty"),
    ("short", b"\x10\x00", "malformed-connect", "protocol name"),
]


@pytest.mark.parametrize(
    ("raw", "reason", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_refused(raw: bytes, reason: str, said: str) -> None:
    told, answer = await refused(raw)
    assert told.reason == reason
    assert said in told.detail
    code = REASONS[reason].connack
    if "MQTT 5" in said:
        assert answer == b"\x20\x03\x00\x84\x00"
    else:
        assert answer == (b"" if code is None else connack(code))


FOREIGN = [row for row in REFUSED if row[2] == "protocol-version"]


@pytest.mark.parametrize(
    ("raw", "client_id"), list(zip([row[1] for row in FOREIGN], ["old", "new", "b"], strict=True))
)
async def test_the_client_id_of_a_foreign_version_is_recorded(raw: bytes, client_id: str) -> None:
    told, _ = await refused(raw)
    assert told.client_id == client_id


async def test_paho_writes_what_we_read() -> None:
    chance = random.Random(7)
    connects = [any_connect(chance) for _ in range(100)]
    assert await decoded(*map(paho_connect, connects)) == connects
    assert await decoded(*(connect.encode() for connect in connects)) == connects


def any_connect(chance: random.Random) -> Connect:
    def any_text(alphabet: str = "ab/é\U0001f600 $+") -> str:
        return "".join(chance.choices(alphabet, k=chance.randrange(1, 20)))

    will = Will(any_text("ab/é"), chance.randbytes(9), chance.randrange(3), chance.random() < 0.5)
    return Connect(
        client_id=any_text(),
        clean_session=chance.random() < 0.5,
        keep_alive=chance.randrange(65536),
        will=will if chance.random() < 0.5 else None,
        username=any_text(),
        password=chance.randbytes(5) if chance.random() < 0.5 else None,
    )


def paho_connect(connect: Connect) -> bytes:
    client = PahoClient(
        CallbackAPIVersion.VERSION2, connect.client_id, clean_session=connect.clean_session, protocol=MQTTv311
    )
    written: list[bytes] = []
    client._packet_queue = lambda command, packet, mid, qos, info=None: written.append(bytes(packet))  # type: ignore[assignment, return-value]
    if connect.will is not None:
        will = connect.will
        client.will_set(will.topic, will.message, will.qos, will.retain)
    client.username_pw_set(connect.username)
    client._password = connect.password
    client._send_connect(connect.keep_alive)
    return written[0]
