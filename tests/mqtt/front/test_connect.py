"""The CONNECT decoder: a table over the rules of MQTT 3.1.1, any bytes, and paho's encoder."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from proxyproto_rs.mqtt.front.connect import connect_length, decode_connect, describe
from proxyproto_rs.mqtt.model.login import Connect, Will
from proxyproto_rs.mqtt.model.reasons import REASONS, Refuse

from ..peers import packet, text

if TYPE_CHECKING:
    from collections.abc import Callable

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
def test_valid(raw: bytes, expected: Connect) -> None:
    assert decode_connect(raw) == expected
    assert expected.encode() == raw


def test_an_empty_client_id_gets_one_name_for_all() -> None:
    first, second = decode_connect(body(0x02, text(""))), decode_connect(body(0x02, text("")))
    assert first.client_id.startswith("auto-")
    assert len(first.client_id) == len("auto-") + 16
    assert first.client_id != second.client_id
    assert decode_connect(first.encode()) == first


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
    ("MQTT-4.7.2-1", body(0x06, text("dev"), text("$SYS/x"), text("")), "malformed-connect", "starts with $"),
    ("MQTT-4.7.3-1", body(0x06, text("dev"), text(""), text("")), "malformed-connect", "empty"),
    ("short", b"\x10\x00", "malformed-connect", "protocol name"),
]


@pytest.mark.parametrize(
    ("raw", "reason", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused(raw: bytes, reason: str, said: str) -> None:
    with pytest.raises(Refuse) as refused:
        decode_connect(raw)
    assert refused.value.reason == reason
    assert said in refused.value.detail


FOREIGN = [row for row in REFUSED if row[2] == "protocol-version"]


@pytest.mark.parametrize(
    ("raw", "client_id"), list(zip([row[1] for row in FOREIGN], ["old", "new", "b"], strict=True))
)
def test_the_client_id_of_a_foreign_version_is_recorded(raw: bytes, client_id: str) -> None:
    with pytest.raises(Refuse) as refused:
        decode_connect(raw)
    assert refused.value.client_id == client_id


def test_length_is_known_as_soon_as_its_bytes_are_there() -> None:
    whole = body(0x02, text("x" * 200))
    for size in range(3):
        assert connect_length(whole[:size], 1000) is None
    assert connect_length(whole[:3], 1000) == len(whole)
    assert connect_length(whole, len(whole)) == len(whole)
    with pytest.raises(Refuse, match=str(len(whole))):
        connect_length(whole[:3], len(whole) - 1)
    with pytest.raises(Refuse, match="more than 4 bytes"):
        connect_length(b"\x10\x80\x80\x80\x80", 1000)


def outcome(call: Callable[[], Any]) -> Any:
    """Return the result, or the refusal as a value. Any other exception fails the test."""
    try:
        return call()
    except Refuse as refused:
        return REASONS[refused.reason].code


@given(st.binary(max_size=300))
def test_any_bytes_have_a_length_or_a_reason(data: bytes) -> None:
    outcome(lambda: connect_length(data, 1000))
    if data:
        assert describe(data)


@given(st.binary(max_size=200), st.sampled_from([HEAD, b"\x00\x04MQTT\x05", b"\x00\x06MQIsdp\x03", b""]))
def test_any_body_is_a_connect_or_has_a_reason(data: bytes, head: bytes) -> None:
    raw = packet(0x10, head + data)
    decoded = outcome(lambda: decode_connect(raw))
    if isinstance(decoded, Connect) and not decoded.client_id.startswith("auto-"):
        assert decoded.encode() == raw


def mqtt_text(min_size: int = 0) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=40)


topics = mqtt_text(1).filter(lambda topic: not set(topic) & {"#", "+"} and not topic.startswith("$"))
wills = st.builds(Will, topics, st.binary(max_size=100), st.integers(0, 2), st.booleans())
connects = st.builds(
    Connect,
    client_id=mqtt_text(1),
    clean_session=st.booleans(),
    keep_alive=st.integers(0, 65535),
    will=st.none() | wills,
    username=mqtt_text(1),
    password=st.none() | st.binary(min_size=1, max_size=40),
)


@given(connects)
def test_what_is_encoded_is_decoded(connect: Connect) -> None:
    raw = connect.encode()
    assert connect_length(raw, len(raw)) == len(raw)
    assert decode_connect(raw) == connect


@given(connects)
def test_paho_writes_what_we_read(connect: Connect) -> None:
    assert decode_connect(paho_connect(connect)) == connect


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
