"""How bytes look when people paste them: as tools, languages and captures write them."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "vectors.json").read_text()
)


def printable(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def rows(data: bytes, width: int = 16) -> list[tuple[int, bytes]]:
    return [(at, data[at : at + width]) for at in range(0, len(data), width)]


def xxd(data: bytes) -> str:
    lines = []
    for at, row in rows(data):
        pairs = " ".join(row[place : place + 2].hex() for place in range(0, len(row), 2))
        lines.append(f"{at:08x}: {pairs:<39}  {printable(row)}")
    return "\n".join(lines) + "\n"


def hexdump(data: bytes) -> str:
    lines, last, repeats = [], b"", False
    for at, row in rows(data):
        if row == last and len(row) == 16:
            if not repeats:
                lines.append("*")
            repeats = True
            continue
        halves = f"{row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}"
        lines.append(f"{at:08x}  {halves}  |{printable(row)}|")
        last, repeats = row, False
    return "\n".join([*lines, f"{len(data):08x}"]) + "\n"


def wireshark_dump(data: bytes) -> str:
    return "".join(f"{at:04x}   {row.hex(' '):<47}   {printable(row)}\n" for at, row in rows(data))


def c_array(data: bytes) -> str:
    body = ", ".join(f"0x{byte:02x}" for byte in data)
    return f"static const unsigned char pkt1[{len(data)}] = {{ /* Packet 1 */\n{body}\n}};\n"


def c_escapes(data: bytes) -> str:
    return '"' + '"\n  "'.join("".join(f"\\x{byte:02x}" for byte in row) for _, row in rows(data)) + '"\n'


def octal_escapes(data: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in data)


def json_escapes(data: bytes) -> str:
    return json.dumps(data.decode("ascii"))


FORMS: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "hex-upper": lambda data: data.hex().upper(),
    "hex-spaced": lambda data: data.hex(" ") + "\n",
    "hex-colons": lambda data: data.hex(":"),
    "hex-dashes": lambda data: data.hex("-"),
    "hex-lines": lambda data: "\n".join(row.hex() for _, row in rows(data, 30)),
    "0x-list": lambda data: "[" + ", ".join(f"0x{byte:02X}" for byte in data) + "]",
    "c-array": c_array,
    "c-escapes": c_escapes,
    "octal-escapes": octal_escapes,
    "python": repr,
    "xxd": xxd,
    "hexdump-C": hexdump,
    "wireshark-dump": wireshark_dump,
}

VAGUE: dict[str, Callable[[bytes], str]] = {
    "base64": lambda data: base64.b64encode(data).decode(),
    "base64-lines": lambda data: base64.encodebytes(data).decode(),
    "base64-url": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
}
"""Forms that any word could be. They are recognised if a header begins in them."""

CLIENT, SERVER = (bytes([10, 0, 0, 5]), 51724), (bytes([10, 0, 0, 20]), 1883)


def tcp(data: bytes, *, sequence: int, flags: int = 0x18, back: bool = False) -> bytes:
    """A packet of IPv4 and TCP, without checksums."""
    (source, sport), (destination, dport) = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    head = struct.pack("!HHIIBBHHH", sport, dport, sequence & 0xFFFFFFFF, 0, 0x50, flags, 1024, 0, 0)
    length = 20 + len(head) + len(data)
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 6, 0, source, destination) + head + data


def connection(data: bytes, size: int = 1000, start: int = 0xFFFFFFF0) -> list[bytes]:
    """The packets of a connection in which the client sends `data`. Its numbers wrap around."""
    packets = [tcp(b"", sequence=start, flags=0x02), tcp(b"", sequence=7, flags=0x12, back=True)]
    return packets + [tcp(piece, sequence=start + 1 + at) for at, piece in rows(data, size)]


def ethernet(packet: bytes, vlan: bool = False) -> bytes:
    tag = b"\x81\x00\x00\x05" if vlan else b""
    frame = bytes(12) + tag + b"\x08\x00" + packet
    return frame + bytes(max(0, 60 - len(frame)))


def pcap(frames: list[bytes], link: int = 1, order: str = "<") -> bytes:
    data = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for frame in frames:
        data += struct.pack(f"{order}IIII", 0, 0, len(frame), len(frame)) + frame
    return data


def pcapng(frames: list[bytes], link: int = 1, order: str = "<") -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + length + body + length

    data = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, struct.pack(f"{order}HHI", link, 0, 0))
    for frame in frames:
        data += block(6, struct.pack(f"{order}IIIII", 0, 0, 0, len(frame), len(frame)) + frame)
    return data
