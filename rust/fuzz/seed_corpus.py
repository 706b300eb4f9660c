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
    seed("mqtt_framing", "all", bytes.fromhex("".join(PACKETS.values())))


def seed(target: str, name: str, data: bytes) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
