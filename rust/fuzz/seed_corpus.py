"""Writes the byte vectors into corpus/TARGET, where each fuzz target starts. Earlier findings stay there."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = HERE.parent.parent / "tests/vectors/vectors.json"
TARGETS = ("whole", "split", "round_trip", "differential")
FIXED_PART_AND_IPV4_BLOCK = 28


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


def seed(target: str, name: str, data: bytes) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
