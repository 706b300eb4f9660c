"""Every byte of a header: which field it is, what it says, and by which rule.

Our codec judges the header. The walk here only names the bytes, and so it also goes through headers that are broken. The
fields of a header lie side by side and leave no byte out.
"""

from __future__ import annotations

import collections
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxyproto_rs import Command, Family, Header, IncompleteHeader, InvalidHeader, parse

from ..colours import shown
from .pasted import SIGNATURE, V1_SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LONGEST_HEADER = 65551
DEFAULT_LONGEST = 4096
"""The default of ``max_header_size=``."""

_FIXED = 16
_V1_LONGEST = 107


@dataclass(frozen=True, slots=True)
class Field:
    """Some bytes side by side."""

    start: int
    end: int
    name: str
    value: str
    rules: tuple[str, ...]
    depth: int = 0
    """1 within a TLV, 2 within an SSL TLV."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One header, or what came in its place."""

    data: bytes
    """From its first byte to the end of what was pasted."""
    fields: list[Field]
    header: Header | None
    """None if it is not whole and valid."""
    length: int
    """How many bytes it has; of a header that is not valid, how many the fields cover."""
    fault: InvalidHeader | IncompleteHeader | None
    notes: list[str] = field(default_factory=list)
    """What is valid, and worth a look."""


def explain(data: bytes) -> Explained:
    """Explain the header at the start of `data`. Nothing is raised for any bytes."""
    header: Header | None = None
    fault: InvalidHeader | IncompleteHeader | None = None
    length = 0
    try:
        header, length = parse(data, max_header_size=LONGEST_HEADER)
    except (IncompleteHeader, InvalidHeader) as wrong:
        fault = wrong
    if not data:
        fields = []
    elif data.startswith(V1_SIGNATURE[: len(data)]):
        fields = list(_v1(data if header is None else data[:length]))
    elif data.startswith(SIGNATURE[: len(data)]):
        is_judged = not isinstance(fault, InvalidHeader) or fault.offset >= _FIXED
        fields = list(_v2(data if header is None else data[:length], header, is_judged=is_judged))
    else:
        fields = []
    if header is None:
        length = fields[-1].end if fields else 0
    return Explained(data, fields, header, length, fault, list(_notes(header, length)) if header else [])


def looks_like(data: bytes) -> str:
    """Say what the first bytes of a stream are, with the article: ``an HTTP request``."""
    if not data:
        return "nothing"
    text = str(InvalidHeader("bad-signature", 0, data[:16]))
    return text.rpartition("which looks like ")[2].removesuffix(")")


def _v1(data: bytes) -> Iterator[Field]:
    """Name the words of the line, and the spaces between them."""
    line_end = data.find(b"\r\n", 0, _V1_LONGEST)
    end = line_end if line_end >= 0 else min(len(data), _V1_LONGEST)
    at, index = 0, 0
    while at < end:
        if data[at : at + 1] == b" ":
            yield Field(at, at + 1, "space", "", ("R9",))
            at += 1
            if data[5:13] == b" UNKNOWN" and index == _AFTER_UNKNOWN and at < end:
                yield Field(at, end, "ignored", shown(data[at:end]), ("R10", "C7"))
                at = end
            continue
        # Whatever follows it, the signature is five bytes long (R32).
        stop = data.find(b" ", at, end) if index else min(len(V1_SIGNATURE), end)
        stop = end if stop < 0 else stop
        name, rules = _V1_WORDS[index] if index < len(_V1_WORDS) else ("extra", ("R9",))
        yield Field(at, stop, name, shown(data[at:stop]), rules)
        at, index = stop, index + 1
    if line_end >= 0:
        yield Field(end, end + 2, "end of line", "CR LF", ("R9", "R18"))


_AFTER_UNKNOWN = 2
_V1_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("signature", ("R9", "R32")),
    ("protocol", ("R9", "R13")),
    ("source address", ("R11", "R12")),
    ("destination address", ("R11", "R12")),
    ("source port", ("R14",)),
    ("destination port", ("R14",)),
)


def _v2(data: bytes, header: Header | None, *, is_judged: bool) -> Iterator[Field]:
    """Name the fixed part, the addresses and the TLVs, as far as the bytes go.

    If the fixed part is wrong, nothing says what the rest is: it was not judged.
    """
    yield Field(0, min(len(data), 12), "signature", "\\r\\n\\r\\n\\0\\r\\nQUIT\\n", ("R20", "R32"))
    if len(data) > 12:  # byte 12
        yield Field(12, 13, "version and command", _command(data[12]), ("R21", "R22"))
    if len(data) > 13:  # byte 13
        rules = ("R23", "C1") if data[12] == _LOCAL else ("R25",)
        yield Field(13, 14, "family and transport", _family(data[13]), rules)
    if len(data) > 14:  # byte 14
        length = data[14:16]
        value = f"{int.from_bytes(length, 'big')} bytes follow" if len(length) == 2 else "cut"
        yield Field(14, min(len(data), _FIXED), "length", value, ("R28", "R29"))
    if len(data) <= _FIXED:
        return
    end = min(len(data), _FIXED + int.from_bytes(data[14:16], "big"))
    if end == _FIXED:
        return
    if not is_judged:
        yield Field(_FIXED, end, "not read", shown(data[_FIXED:end]), ("C13",))
    elif data[12] == _LOCAL or 0 in (data[13] >> 4, data[13] & 0x0F):
        # TLVs, if the whole block reads as such (C2).
        if header is not None and not header.tlvs:
            yield Field(_FIXED, end, "ignored", shown(data[_FIXED:end]), ("R23", "R26", "C2"))
        else:
            yield from _tlvs(data, _FIXED, end, 1)
    else:
        start = yield from _addresses(data, end)
        yield from _tlvs(data, start, end, 1)


_LOCAL = 0x20


def _command(byte: int) -> str:
    version = byte >> 4
    command = {0: "LOCAL: the proxy speaks for itself", 1: "PROXY: it speaks for a client"}
    return f"version {version}, {command.get(byte & 0x0F, f'no command ({byte & 0x0F})')}"


def _family(byte: int) -> str:
    families = {0: "UNSPEC", 1: "INET (IPv4)", 2: "INET6 (IPv6)", 3: "UNIX"}
    transports = {0: "UNSPEC", 1: "STREAM", 2: "DGRAM"}
    family = families.get(byte >> 4, f"no family ({byte >> 4})")
    return f"{family}, {transports.get(byte & 0x0F, f'no transport ({byte & 0x0F})')}"


def _addresses(data: bytes, end: int) -> Generator[Field, None, int]:
    """Name the addresses and return where the TLVs start (R29)."""
    at = _FIXED
    for name, size, rules in _BLOCKS[data[13] >> 4]:
        if at >= end:
            break
        value = data[at : min(at + size, end)]
        yield Field(at, at + len(value), name, _address(value, size), rules)
        at += len(value)
    return at


_BLOCKS: dict[int, tuple[tuple[str, int, tuple[str, ...]], ...]] = {
    family: (
        ("source address", size, ("R24", "R29")),
        ("destination address", size, ("R24", "R29")),
        *((("source port", 2, ("R29",)), ("destination port", 2, ("R29",))) if size <= 16 else ()),
    )
    for family, size in ((1, 4), (2, 16), (3, 108))
}


def _address(value: bytes, size: int) -> str:
    if len(value) < size:
        return f"cut: {value.hex(' ')}"
    if size == 2:  # a port
        return str(int.from_bytes(value, "big"))
    if size in (4, 16):
        return str(ipaddress.ip_address(value))
    name = value.rstrip(b"\x00")
    return (
        f"abstract {shown(name[1:], 108)}" if name[:1] == b"\x00" else shown(name.partition(b"\x00")[0], 108)
    )


def _tlvs(data: bytes, at: int, end: int, depth: int) -> Iterator[Field]:
    """Name TLVs, of which each is a type, a length and a value."""
    nested = depth > 1
    while at < end:
        kind = data[at]
        name = _TLVS.get(kind) or _range_of(kind)
        rule = _TLV_RULES.get(kind, "R37" if nested else "R33")
        if end - at < 3:  # a type and a length
            yield Field(
                at,
                end,
                "rest",
                f"{data[at:end].hex(' ')}: no whole type and length",
                ("C9" if nested else "C8",),
                depth,
            )
            return
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        stop = min(at + 3 + length, end)
        yield Field(at, at + 1, "TLV type", f"{kind:02x} {name}", (rule,), depth)
        yield Field(at + 1, at + 3, "TLV length", str(length), ("R33" if not nested else "R37",), depth)
        value = data[at + 3 : stop]
        if kind == _SSL and not nested and len(value) >= _SSL_FIXED:
            yield Field(at + 3, at + 4, "client flags", _flags(value[0]), ("R37",), depth + 1)
            yield Field(at + 4, at + 8, "verify", _verify(value), ("R37",), depth + 1)
            yield from _tlvs(data, at + 8, stop, depth + 1)
        elif value:
            yield Field(at + 3, stop, "TLV value", _value(kind, value, length), (rule,), depth)
        at = stop


_SSL, _SSL_FIXED = 0x20, 5
_TLVS = {
    0x01: "ALPN",
    0x02: "AUTHORITY (the name that the client asked for)",
    0x03: "CRC32C",
    0x04: "NOOP (padding)",
    0x05: "UNIQUE_ID",
    0x20: "SSL",
    0x21: "SSL_VERSION",
    0x22: "SSL_CN (the name in the client's certificate)",
    0x23: "SSL_CIPHER",
    0x24: "SSL_SIG_ALG",
    0x25: "SSL_KEY_ALG",
    0x26: "SSL_GROUP",
    0x27: "SSL_SIG_SCHEME",
    0x28: "SSL_CLIENT_CERT",
    0x30: "NETNS",
    0xE0: "Google's Private Service Connect",
    0xEA: "AWS's",
    0xEE: "Azure's",
}
_TLV_RULES = {0x03: "R34", 0x04: "R35", 0x05: "R36", 0x20: "R37", 0xE0: "R38", 0xEA: "R38", 0xEE: "R38"}


def _range_of(kind: int) -> str:
    if 0xE0 <= kind <= 0xEF:
        return "an application's (E0-EF)"
    if 0xF0 <= kind <= 0xF7:
        return "an experiment (F0-F7)"
    return "set aside (F8-FF)" if kind >= 0xF8 else "unknown"


def _flags(flags: int) -> str:
    names = [
        name
        for bit, name in (
            (1, "TLS"),
            (2, "certificate in this connection"),
            (4, "certificate in this session"),
        )
        if flags & bit
    ]
    return f"{flags:02x} {', '.join(names) or 'no TLS'}"


def _verify(value: bytes) -> str:
    result = int.from_bytes(value[1:5], "big")
    if result:
        return f"{result}: the proxy could not verify a certificate"
    return "0: verified" if value[0] & 6 else "0: there was no certificate to verify"


def _value(kind: int, value: bytes, length: int) -> str:
    if len(value) < length:
        return f"cut: {len(value)} of {length} bytes: {shown(value, 32)}"
    if kind == 0x03:
        return value.hex()
    if kind == 0x04 and not any(value):
        return f"{len(value)} zeros"
    if kind == 0xEA and value[:1] == b"\x01":
        return f"VPC endpoint {shown(value[1:])}"
    if kind == 0xEE and value[:1] == b"\x01" and len(value) == 5:
        return f"Private Link {int.from_bytes(value[1:], 'little')}"
    if kind == 0xE0 and len(value) == 8:
        return f"connection {int.from_bytes(value, 'big')}"
    return shown(value)


def _notes(header: Header, length: int) -> Iterator[str]:
    """Say what is valid and yet surprises people."""
    if length > DEFAULT_LONGEST:
        yield (
            f"It is {length} bytes long. A Listener takes {DEFAULT_LONGEST}, unless max_header_size= says more: "
            "otherwise the outcome is oversized."
        )
    if header.command is Command.LOCAL:
        yield "LOCAL: the proxy speaks for itself, as in a health check. The connection's own addresses apply (R23)."
    elif header.source is None:
        yield "The header names nobody. The connection's own addresses apply (R10, R26)."
    source = header.source_ip
    if source is not None and (
        source.is_unspecified or source.is_multicast or str(source) == "255.255.255.255"
    ):
        yield f"No client can have the address {source}: a Listener refuses it as malformed."
    if header.version == 1 and header.family is Family.INET6 and source is not None and source.version == 4:
        yield "An IPv4 address written as IPv6. A Listener shows it as IPv4."
    counts = collections.Counter(kind for kind, _ in header.tlvs)
    twice = sorted(kind for kind, count in counts.items() if count > 1 and kind != 0x04)[:8]
    if twice:
        names = ", ".join(f"{kind:02x}" for kind in twice)
        yield f"TLVs that are there twice: {names}. get_tlv() gives the first (C11)."
