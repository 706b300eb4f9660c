"""What others say of the CONNECT packets in tests/vectors, which the decoder in Rust reads as its own tests say.

Mosquitto is a broker; ohmqtt and mqtt5 are libraries that read MQTT 5 only. Where one of them says something else than
the table, it is named here with the reason.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..brokers import running_mosquitto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..brokers import Address

ROWS = json.loads((Path(__file__).parents[2] / "vectors/mqtt_connects.json").read_text())
MQTT_5 = [row for row in ROWS if row["version"] == "MQTT 5"]

# mqtt5 panics at these.
READ_BY_MQTT5 = [row for row in MQTT_5 if not row.get("detail", "").endswith("is not UTF-8")]

FIELDS = ("client_id", "clean_start", "keep_alive", "username")
WAIT = 10.0  # seconds
BRIDGE = "it serves the own protocol of its bridges"
NO_CHECK = "it does not check this"
NO_TOPICS = "it does not check topics"
NO_NULS = "it does not look for NUL"
NO_FLAGS = "it does not look at these flags"

MOSQUITTO = {
    "5-all-properties": "it knows no such authentication method: 0x8c",
    "bridge-of-mosquitto-3.1": BRIDGE,
    "bridge-of-mosquitto-3.1.1": BRIDGE,
    "5-length-with-needless-bytes": NO_CHECK,
    "5-authentication-data-without-method": NO_CHECK,
    "5-will-payload-format-2": NO_CHECK,
    "5-will-response-topic-with-wildcard": NO_TOPICS,
}
OHMQTT = {
    "5-will-qos-without-a-will": NO_FLAGS,
    "5-will-retain-without-a-will": NO_FLAGS,
    "5-will-qos-3": NO_FLAGS,
    "5-will-topic-with-hash": NO_TOPICS,
    "5-will-topic-with-plus": NO_TOPICS,
    "5-will-topic-is-empty": NO_TOPICS,
    "5-authentication-data-without-method": NO_CHECK,
}
MQTT5 = {
    "5-reserved-flag": NO_FLAGS,
    "5-will-qos-without-a-will": NO_FLAGS,
    "5-will-retain-without-a-will": NO_FLAGS,
    "5-client-id-with-nul": NO_NULS,
    "5-will-topic-with-nul": NO_NULS,
    "5-user-name-with-nul": NO_NULS,
    "5-user-property-with-nul": NO_NULS,
    "5-will-topic-with-hash": NO_TOPICS,
    "5-will-topic-with-plus": NO_TOPICS,
    "5-will-topic-is-empty": NO_TOPICS,
    "5-will-response-topic-with-wildcard": NO_TOPICS,
    "5-authentication-data-without-method": NO_CHECK,
    "5-will-payload-format-2": NO_CHECK,
}


def by_name(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row["name"] for row in rows])


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as address:
        yield address


@by_name(ROWS)
def test_mosquitto(row: dict[str, Any], mosquitto: Address) -> None:
    answer = answer_to(bytes.fromhex(row["hex"]), mosquitto)
    taken = answer[:1] == b"\x20" and answer[3] == 0
    assert taken == (row["expect"] == "ok") ^ (row["name"] in MOSQUITTO), answer.hex(" ")
    if row["expect"] == "ok" or row["name"] in MOSQUITTO:
        return
    if row["reason"] == "malformed-connect":
        # It never answers, and MQTT 5 leaves that open (section 4.13.1).
        assert answer == b""
    else:
        assert answer == bytes((0x20, 2, 0, row["connack"]))


def answer_to(packet: bytes, address: Address) -> bytes:
    """Return all that the broker sends to a client that sends one packet and then closes its side."""
    answer = b""
    with socket.create_connection(address, WAIT) as client:
        # A broker that closes without having read everything resets the connection.
        with contextlib.suppress(OSError):
            client.sendall(packet)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while received := client.recv(4096):
                answer += received
    return answer


@by_name(MQTT_5)
def test_ohmqtt(row: dict[str, Any]) -> None:
    packet = pytest.importorskip("ohmqtt.packet", reason="ohmqtt needs Python 3.11")
    check(row, lambda: packet.decode_packet(bytes.fromhex(row["hex"])), OHMQTT)


@by_name(READ_BY_MQTT5)
def test_mqtt5(row: dict[str, Any]) -> None:
    mqtt5 = pytest.importorskip("mqtt5", reason="mqtt5 needs Python 3.11")
    raw = bytes.fromhex(row["hex"])

    def read() -> Any:
        packet, size = mqtt5.read(memoryview(raw))
        assert size == len(raw)
        return packet

    check(row, read, MQTT5)


def check(row: dict[str, Any], read: Callable[[], Any], differs: dict[str, str]) -> None:
    """Compare what a library reads with the table."""
    try:
        packet = read()
    except Exception:  # each library has errors of its own, and Python's besides
        packet = None
    assert (packet is not None) == (row["expect"] == "ok") ^ (row["name"] in differs)
    if row["expect"] == "ok":
        read_fields = (
            packet.client_id,
            packet.clean_start,
            packet.keep_alive,
            packet.username,
            packet.password,
        )
        password = None if row["password"] is None else bytes.fromhex(row["password"])
        assert read_fields == (*(row[key] for key in FIELDS), password)


@pytest.mark.parametrize(("differs", "rows"), [(MOSQUITTO, ROWS), (OHMQTT, MQTT_5), (MQTT5, READ_BY_MQTT5)])
def test_only_what_exists_is_named(differs: dict[str, str], rows: list[dict[str, Any]]) -> None:
    assert differs.keys() <= {row["name"] for row in rows}
