"""Security holes that readers of headers have had, by number or name, and what the codec says about the same bytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from codec.independent_reader import crc32c
from peers import CLIENT, SERVER, SIGNATURE
from proxyproto_rs import Command, Decoder, Family, IncompleteHeader, InvalidHeader, Transport, parse

if TYPE_CHECKING:
    from proxyproto_rs import Header

INET_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + (51724).to_bytes(2, "big") + (443).to_bytes(2, "big")


def v2(command_and_family: bytes, block: bytes) -> bytes:
    return SIGNATURE + command_and_family + len(block).to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_tlvs(*tlvs: bytes) -> bytes:
    return v2(b"\x21\x11", INET_BLOCK + b"".join(tlvs))


def read(data: bytes) -> Header:
    """Read a header that takes all of `data`, however long it is."""
    header, consumed = parse(data, max_header_size=65551)
    assert consumed == len(data)
    return header


def refusal(data: bytes) -> tuple[str, int]:
    with pytest.raises(InvalidHeader) as caught:
        parse(data)
    return caught.value.reason, caught.value.offset


@pytest.mark.parametrize("beginning", [b"PROXY UNKNOWN ", b"PROXY TCP4 ", b"PROXY TCP6 1"])
def test_cve_2021_23351_a_line_without_end(beginning: bytes) -> None:
    """go-proxyproto read a version 1 line of any length into memory. R17 allows 107 bytes."""
    line = beginning.ljust(107, b"1")
    with pytest.raises(IncompleteHeader):
        parse(line[:106])
    assert refusal(line) == refusal(line + b"1" * 10_000_000) == ("line-too-long", 107)

    decoder = Decoder()
    for byte in line[:-1]:
        assert decoder.feed(bytes([byte])) is None
    with pytest.raises(InvalidHeader):
        decoder.feed(line[-1:])


def test_family_byte_0x13_and_the_65535_other_pairs_of_bytes() -> None:
    """Readers crashed on values that do not exist, or accepted them, such as transport 3 of byte 0x13."""
    block = bytes(216)  # addresses of each family; behind the shorter ones, TLVs of type 0 and length 0
    wrong = []
    for first in range(256):
        for second in range(256):
            version, command = divmod(first, 16)
            family, transport = divmod(second, 16)
            is_valid = version == 2 and (command == 0 or (command == 1 and family <= 3 and transport <= 2))
            try:
                header = read(v2(bytes([first, second]), block))
                as_expected = is_valid and header.command is Command(command)
                if command:
                    as_expected &= (header.family, header.transport) == (Family(family), Transport(transport))
                else:
                    as_expected &= (header.family, header.transport) == (Family.UNSPEC, Transport.UNSPEC)
            except InvalidHeader as error:
                as_expected = not is_valid and error.offset in (12, 13)
            if not as_expected:
                wrong.append((first, second))
    assert not wrong


@pytest.mark.parametrize("family", [0x00, 0x11, 0x12, 0x21, 0x31, 0x13, 0x99, 0xFF], ids=hex)
def test_a_crash_on_local(family: int) -> None:
    """Readers took LOCAL's block for addresses.

    LOCAL has no addresses: its block is skipped, whatever it holds (R28).
    """
    for size in (*range(41), 215, 216, 217, 65535):
        for filler in (b"\x00", b"\x7f", b"\xff"):
            header = read(v2(bytes([0x20, family]), filler * size))
            assert header.command is Command.LOCAL
            assert header.source is None
            assert header.destination is None


def test_locals_block_taken_for_the_client() -> None:
    """A health check of AWS NLB has family 0x11 and TLVs at byte 17. Readers saw a client 3.0.4.188:74 in them."""
    block = tlv(0x03, bytes.fromhex("bce5951f")) + tlv(0x04, bytes(74))
    header = read(v2(b"\x20\x11", block))
    assert (header.family, header.source, header.destination) == (Family.UNSPEC, None, None)
    assert header.tlvs == ((0x03, bytes.fromhex("bce5951f")), (0x04, bytes(74)))


@pytest.mark.parametrize(
    ("family", "size"), [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)]
)
def test_payload_read_as_addresses(family: int, size: int) -> None:
    """Readers that trusted the family and not the length took addresses from behind the header (R29)."""
    payload = bytes(range(216))
    for length in range(size):
        header = SIGNATURE + bytes([0x21, family]) + length.to_bytes(2, "big")
        assert refusal(header + payload) == refusal(header) == ("length-too-short", 14)


@pytest.mark.parametrize(
    "fixed", [b"\x20\x00", b"\x20\x11", b"\x21\x00", b"\x21\x10", b"\x21\x01"], ids=bytes.hex
)
def test_payload_read_as_addresses_where_there_are_none(fixed: bytes) -> None:
    header, consumed = parse(v2(fixed, b"") + INET_BLOCK)
    assert (header.source, header.destination, consumed) == (None, None, 16)


@pytest.mark.parametrize(
    "value",
    [
        b"a\xffb.example",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"a\0b",
        b"a\r\nX-Real-IP: 1.2.3.4",
        b"\x1b[2J",
        b"a\xc2\x85",
    ],
    ids=repr,
)
def test_cve_2024_23324_text_of_tlvs_is_not_sanitised(value: bytes) -> None:
    """Envoy replaced the bytes of a TLV that were not UTF-8: two different names became the same."""
    ssl = tlv(0x20, b"\x07\0\0\0\0" + tlv(0x21, value) + tlv(0x22, value))
    header = read(with_tlvs(tlv(0x02, value), tlv(0x30, value), ssl))
    assert header.ssl is not None
    assert header.authority is header.netns is header.ssl.version is header.ssl.cn is None
    assert header.get_tlv(0x02) == header.get_tlv(0x30) == value
    assert header.ssl.tlvs == ((0x21, value), (0x22, value))


@pytest.mark.parametrize("excess", [1, 2, 255, 256, 65532])
def test_tlv_lengths_past_the_header(excess: int) -> None:
    """Readers have read past the header, into the payload or out of their buffer (C8)."""
    payload = bytes(65535)
    lying = bytes([0x02]) + (3 + excess).to_bytes(2, "big") + b"abc"
    assert refusal(with_tlvs(lying) + payload) == ("tlv-overrun", 28)
    nested = tlv(0x20, b"\x01\0\0\0\0" + lying)
    assert refusal(with_tlvs(nested, tlv(0x04, bytes(300))) + payload) == ("ssl-tlv-overrun", 28 + 3 + 5)


@pytest.mark.parametrize("levels", [140, 8187])
def test_nested_tlvs(levels: int) -> None:
    """A reader that follows SSL TLVs within SSL TLVs runs out of stack. We read the first level and no more."""
    value = b""
    for _ in range(levels):
        value = tlv(0x20, b"\x01\0\0\0\0" + value)
    header = read(with_tlvs(value))
    for _ in range(2):
        assert header.ssl is not None
        assert [kind for kind, _ in header.ssl.tlvs] == [0x20]
    assert header.ssl is not None
    assert header.ssl.tlvs[0][1] == value[3 + 5 + 3 :]


@pytest.mark.parametrize("order", ["big", "little"])
def test_checksum_byte_order(order: str) -> None:
    """Some senders and readers agreed only with each other. The checksum is CRC32C, in network order (R34)."""
    zeroed = with_tlvs(tlv(0x03, bytes(4)), tlv(0x02, b"example.org"))

    def with_checksum(checksum: int) -> bytes:
        value = checksum.to_bytes(4, "big" if order == "big" else "little")
        return zeroed[:31] + value + zeroed[35:]

    right = with_checksum(crc32c(zeroed))
    if order == "big":
        header = read(right)
        assert (header.source, header.destination) == (CLIENT, SERVER)
    else:
        assert refusal(right) == ("checksum-mismatch", 31)
    assert refusal(with_checksum(zlib.crc32(zeroed))) == ("checksum-mismatch", 31)
