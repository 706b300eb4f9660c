"""A second reader of PROXY headers, written from the rules alone. Tests compare the codec with it.

It is made to be read beside the rules, not to be fast: it copies, it raises, and `ipaddress` reads the text
of its addresses. It shares no line and no design with the codec, so the same mistake in both is unlikely.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # R20
V1_LONGEST_LINE = 107  # R17, with its CRLF

LOCAL, PROXY = 0, 1  # R22
UNSPEC, INET, INET6, UNIX = 0, 1, 2, 3  # R25
STREAM, DGRAM = 1, 2
ADDRESS_BLOCK_SIZE = {INET: 12, INET6: 36, UNIX: 216}  # R29

TLV_CRC32C, TLV_UNIQUE_ID, TLV_SSL = 0x03, 0x05, 0x20

Tlv = tuple[int, bytes]
# A path is text, an abstract name is bytes, as in the socket module (C14). None: the real endpoint applies.
Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | str | bytes | None


class Incomplete(Exception):
    """The bytes can still become a header, and nothing in them is wrong so far."""


class Invalid(Exception):
    """No header begins with these bytes."""


@dataclass(frozen=True)
class Reading:
    """What one header says, as numbers. It does not write addresses as text."""

    version: int
    command: int
    family: int
    transport: int
    source: Address
    destination: Address
    tlvs: tuple[Tlv, ...]
    consumed: int


def read(data: bytes, *, max_header_size: int = 4096) -> Reading:
    """Read the header at the start of a stream (R32).

    Raises:
        Incomplete: more bytes may make it a header.
        Invalid: no more bytes can make it a header.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data, max_header_size)
    return _read_v1(data)


def _read_v1(data: bytes) -> Reading:
    protocol = _v1_protocol(data)
    line, end = _v1_line(data, lone_cr_lf_allowed=protocol == "UNKNOWN")
    if protocol == "UNKNOWN":  # R10: the rest of the line is ignored
        return Reading(1, PROXY, UNSPEC, UNSPEC, None, None, (), end)

    fields = line.split(b" ")  # R9: single spaces, so a double space leaves an empty field
    if len(fields) != 6:
        raise Invalid("a line has six words")
    _, _, source_host, destination_host, source_port, destination_port = fields
    family = INET if protocol == "TCP4" else INET6
    source = _v1_address(family, source_host, source_port)
    destination = _v1_address(family, destination_host, destination_port)
    return Reading(1, PROXY, family, STREAM, source, destination, (), end)


def _v1_protocol(data: bytes) -> str:
    """The second word, once the byte behind it is there. A wrong byte up to here is an error at once (C13)."""
    for protocol, ends in (("TCP4", (b" ",)), ("TCP6", (b" ",)), ("UNKNOWN", (b" ", b"\r\n"))):
        for end in ends:
            beginning = b"PROXY " + protocol.encode() + end
            if data.startswith(beginning):
                return protocol
            if beginning.startswith(data):
                raise Incomplete
    raise Invalid("not a PROXY line")


def _v1_line(data: bytes, *, lone_cr_lf_allowed: bool) -> tuple[bytes, int]:
    """The line without its CRLF, and where it ends (R16, R17)."""
    window = data[:V1_LONGEST_LINE]
    line, crlf, _ = window.partition(b"\r\n")
    if not lone_cr_lf_allowed:  # R18; C7 allows them in an UNKNOWN line
        may_be_half_a_crlf = not crlf and line.endswith(b"\r")
        body = line[:-1] if may_be_half_a_crlf else line
        if b"\r" in body or b"\n" in body:
            raise Invalid("a lone CR or LF")
    if crlf:
        return line, len(line) + len(crlf)
    if len(window) == V1_LONGEST_LINE:
        raise Invalid("no CRLF in the first 107 bytes")
    raise Incomplete


def _v1_address(family: int, host: bytes, port: bytes) -> Address:
    if b"%" in host:
        raise Invalid("a zone")  # R12; `ipaddress` accepts zones
    parse = ipaddress.IPv4Address if family == INET else ipaddress.IPv6Address
    try:
        return parse(host.decode("ascii")), _v1_port(port)
    except ValueError as error:  # also AddressValueError and UnicodeDecodeError
        raise Invalid(f"not an address of this family: {host!r}") from error


def _v1_port(port: bytes) -> int:
    is_decimal = 1 <= len(port) <= 5 and all(digit in b"0123456789" for digit in port)
    if not is_decimal or (len(port) > 1 and port.startswith(b"0")) or int(port) > 65535:
        raise Invalid(f"not a port: {port!r}")  # R14
    return int(port)


def _read_v2(data: bytes, max_header_size: int) -> Reading:
    if len(data) > 12:
        version, command = divmod(data[12], 16)
        if version != 2 or command not in (LOCAL, PROXY):  # R21, R22
            raise Invalid("version or command")
    if len(data) > 13 and command == PROXY:  # R23: LOCAL ignores this byte
        family, transport = divmod(data[13], 16)
        if family > UNIX or transport > DGRAM:  # R25
            raise Invalid("family or transport")
    if len(data) < 16:
        raise Incomplete

    if command == LOCAL:
        family = transport = UNSPEC
    has_addresses = UNSPEC not in (family, transport)  # C4, C5: either nibble may be unspecified
    (length,) = struct.unpack("!H", data[14:16])
    if has_addresses and length < ADDRESS_BLOCK_SIZE[family]:
        raise Invalid("the length cannot hold the addresses")
    end = 16 + length  # R28
    if end > max_header_size:
        raise Invalid("longer than allowed")
    if len(data) < end:
        raise Incomplete

    block = data[16:end]
    if has_addresses:
        size = ADDRESS_BLOCK_SIZE[family]
        source, destination = _v2_addresses(family, block[:size])
        tlvs = _tlvs(block[size:])
    else:
        source = destination = None
        try:
            tlvs = _tlvs(block)
        except Invalid:  # C2: the block holds no TLVs, and the receiver ignores it (R23, R26)
            tlvs = ()
    _check_checksum(tlvs, data[:end])  # C3
    return Reading(2, command, family, transport, source, destination, tlvs, end)


def _v2_addresses(family: int, block: bytes) -> tuple[Address, Address]:
    """R29: source, destination, source port, destination port. UNIX addresses have no ports."""
    if family == UNIX:
        return _unix_path(block[:108]), _unix_path(block[108:])
    size = 4 if family == INET else 16
    source, destination, source_port, destination_port = struct.unpack(f"!{size}s{size}sHH", block)
    return (ipaddress.ip_address(source), source_port), (ipaddress.ip_address(destination), destination_port)


def _unix_path(field: bytes) -> str | bytes:
    """Read a UNIX path or an abstract name (C14)."""
    name = field.rstrip(b"\0")
    if name.startswith(b"\0"):
        return name  # abstract
    path, _, _ = name.partition(b"\0")
    return path.decode("utf-8", "surrogateescape")


def _tlvs(block: bytes) -> tuple[Tlv, ...]:
    """The TLVs that fill a block, in wire order (C11). Most types may hold anything."""
    tlvs = _split(block)
    for kind, value in tlvs:
        if kind == TLV_CRC32C and len(value) != 4:  # R34
            raise Invalid("a checksum that is not of four bytes")
        if kind == TLV_UNIQUE_ID and len(value) > 128:  # R36, C10
            raise Invalid("a UNIQUE_ID of more than 128 bytes")
        if kind == TLV_SSL:  # R37, C9
            if len(value) < 5:
                raise Invalid("an SSL TLV of less than 5 bytes")
            _split(value[5:])
    return tlvs


def _split(block: bytes) -> tuple[Tlv, ...]:
    """Read type, two bytes of length and value, up to the last byte of the block (R33, C8)."""
    tlvs = []
    start = 0
    while start < len(block):
        if len(block) < start + 3:
            raise Invalid("half a TLV")
        kind, length = struct.unpack("!BH", block[start : start + 3])
        value = block[start + 3 : start + 3 + length]
        if len(value) < length:
            raise Invalid("a TLV past the end")
        tlvs.append((kind, value))
        start += 3 + length
    return tuple(tlvs)


def _check_checksum(tlvs: tuple[Tlv, ...], header: bytes) -> None:
    """Allow at most one checksum (C12). It must be that of the whole header, with its own bytes taken as zero (R34)."""
    start = len(header) - sum(3 + len(value) for _, value in tlvs)
    checksums = 0
    for kind, value in tlvs:
        if kind == TLV_CRC32C:
            checksums += 1
            zeroed = header[: start + 3] + bytes(4) + header[start + 7 :]
            if checksums > 1 or value != struct.pack("!I", crc32c(zeroed)):
                raise Invalid("checksum")
        start += 3 + len(value)


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit, as in appendix B of RFC 4960."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
