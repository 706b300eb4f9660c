"""Writes the vectors, and packets of MQTT, into corpus/TARGET, where each target starts. Earlier findings stay there."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = HERE.parent.parent / "tests/vectors/vectors.json"
CONNECTS = VECTORS.with_name("mqtt_connects.json")
TARGETS = ("whole", "split", "round_trip", "differential")
FIXED_PART_AND_IPV4_BLOCK = 28
# Packets that both sides send after the CONNECT, of MQTT 3.1.1 and of MQTT 5.
PACKETS = {
    "publish": "30 05 00 03 61 2f 62",
    "publish-5": "32 0c 00 01 61 00 07 04 08 00 01 72 68 69",
    "puback-5": "40 09 00 07 80 05 1f 00 02 6e 6f",
    "subscribe": "82 0b 00 07 00 01 2b 00 00 01 61 02",
    "subscribe-5": "82 09 00 07 02 0b 01 00 01 61 2e",
    "unsubscribe": "a2 05 00 07 00 01 61",
    "ping": "c0 00 d0 00",
    "connack": "20 02 01 00",
    "connack-5": "20 13 00 00 10 12 00 01 78 13 00 1e 1f 00 00 27 00 01 00 00",
    "disconnect-5": "e0 07 00 05 11 00 00 00 3c",
    "server-disconnect-5": "e0 06 8b 04 1c 00 01 78",
    "auth-5": "f0 07 18 05 15 00 02 6d 65",
}

# What a client of WebSocket sends; the mask is 01 02 03 04.
MESSAGES = {
    "request": b"GET /mqtt HTTP/1.1\r\nHost: b\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\nX-Forwarded-For: 203.0.113.9, 10.1.2.3\r\n\r\n\x82\x82\1\2\3\4ab",
    "binary": b"\x82\x82\1\2\3\4ab",
    "binary-16": b"\x82\xfe\0\x80\1\2\3\4" + bytes(128),
    "fragments": b"\2\x81\1\2\3\4a\x89\x81\1\2\3\4p\0\x80\1\2\3\4\x80\x81\1\2\3\4b",
    "ping": b"\x89\x81\1\2\3\4p\x8a\x80\1\2\3\4",
    "text": b"\x81\x81\1\2\3\4a",
    "zclose": b"\x88\x82\1\2\3\4\2\xea",
}


def main() -> None:
    for vector in json.loads(VECTORS.read_text()):
        data = bytes.fromhex(vector["hex"])
        for target in TARGETS:
            seed(target, vector["name"], data)
        # The target tlv_views takes TLVs without the bytes in front of them.
        if vector["tlvs"]:
            block = b"".join(
                bytes([kind]) + (len(value) // 2).to_bytes(2, "big") + bytes.fromhex(value)
                for kind, value in vector["tlvs"]
            )
            seed("tlv_views", vector["name"], block)
        elif len(data) > FIXED_PART_AND_IPV4_BLOCK and "TLV" in vector.get("reason", ""):
            seed("tlv_views", vector["name"], data[FIXED_PART_AND_IPV4_BLOCK:])

    for connect in json.loads(CONNECTS.read_text()):
        seed("mqtt_connect", connect["name"], bytes.fromhex(connect["hex"]))
    for name, data in PACKETS.items():
        seed("mqtt_framing", name, bytes.fromhex(data))
        seed("mqtt_answers", name, bytes.fromhex(data))
    for name, data in MESSAGES.items():
        seed("websocket", name, data)
    seed("websocket", "all", b"".join(MESSAGES[name] for name in sorted(MESSAGES) if name != "request"))
    seed("mqtt_framing", "all", bytes.fromhex("".join(PACKETS.values())))


def seed(target: str, name: str, data: bytes) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
