"""The byte vectors: whole, in pieces, with payload behind them, as a datagram, and in each buffer type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxyproto_rs import Decoder, Header, IncompleteHeader, InvalidHeader, parse, parse_datagram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from codec.conftest import Vector

# Three vectors are longer than the default limit.
LIMIT = 65551

JUNK = b"\r\nPROXY TCP4 \xff\x00\r\n\r\n\x00\r\nQUIT\n"


def spread(data: bytes) -> memoryview:
    """Return a view whose bytes do not lie side by side."""
    return memoryview(bytes(byte for value in data for byte in (value, 0xEE)))[::2]


BUFFERS: list[Callable[[bytes], bytes | bytearray | memoryview]] = [bytes, bytearray, memoryview, spread]


def check_header(header: Header, vector: Vector) -> None:
    assert header.version == vector.version
    assert header.command.name == vector.command
    assert header.family.name == vector.family
    assert header.transport.name == vector.transport
    assert header.source == vector.source
    assert header.destination == vector.destination
    assert header.tlvs == vector.tlvs
    assert header.raw == vector.data[: vector.consumed]
    assert header.encode() == header.raw


def splits(data: bytes) -> Iterable[int]:
    """Return every place to split. For vectors of thousands of bytes, return only the places near either end."""
    if len(data) <= 600:
        return range(len(data) + 1)
    return [*range(300), *range(len(data) - 20, len(data) + 1)]


def feed_all(decoder: Decoder, pieces: Iterable[bytes]) -> Header | None:
    header = None
    for piece in pieces:
        header = decoder.feed(piece)
    return header


@pytest.mark.parametrize("buffer", BUFFERS, ids=["bytes", "bytearray", "memoryview", "strided-view"])
def test_valid(valid_vector: Vector, buffer: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    header, consumed = parse(buffer(valid_vector.data), max_header_size=LIMIT)
    check_header(header, valid_vector)
    assert consumed == valid_vector.consumed


@pytest.mark.parametrize("buffer", BUFFERS, ids=["bytes", "bytearray", "memoryview", "strided-view"])
def test_what_follows_does_not_matter(
    valid_vector: Vector, buffer: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    header, consumed = parse(buffer(valid_vector.data + JUNK), max_header_size=LIMIT)
    check_header(header, valid_vector)
    assert consumed == valid_vector.consumed


def test_valid_in_two_pieces(valid_vector: Vector) -> None:
    data = valid_vector.data + b"payload"
    for at in splits(valid_vector.data):
        decoder = Decoder(max_header_size=LIMIT)
        assert (decoder.feed(data[:at]) is None) == (at < valid_vector.consumed)
        header = decoder.feed(data[at:])
        assert header is not None
        check_header(header, valid_vector)
        assert decoder.leftover == data[valid_vector.consumed :]


def test_valid_byte_by_byte(valid_vector: Vector) -> None:
    decoder = Decoder(max_header_size=LIMIT)
    for at in range(valid_vector.consumed - 1):
        needed = decoder.needed
        assert 1 <= needed <= valid_vector.consumed - at
        assert decoder.feed(valid_vector.data[at : at + 1]) is None
    header = decoder.feed(valid_vector.data[valid_vector.consumed - 1 : valid_vector.consumed])
    assert header is not None
    check_header(header, valid_vector)
    assert decoder.leftover == b""


def test_valid_as_a_datagram(valid_vector: Vector) -> None:
    header, consumed = parse_datagram(valid_vector.data + JUNK, max_header_size=LIMIT)
    check_header(header, valid_vector)
    assert consumed == valid_vector.consumed


def test_reading_what_is_needed_takes_no_payload(valid_vector: Vector) -> None:
    decoder = Decoder(max_header_size=LIMIT)
    stream = memoryview(valid_vector.data + JUNK)
    taken = 0
    while decoder.needed:
        piece = stream[taken : taken + decoder.needed]
        taken += len(piece)
        decoder.feed(piece)
    assert taken == valid_vector.consumed
    assert decoder.header is not None
    assert decoder.leftover == b""


@pytest.mark.parametrize("buffer", BUFFERS, ids=["bytes", "bytearray", "memoryview", "strided-view"])
def test_invalid(invalid_vector: Vector, buffer: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    with pytest.raises(InvalidHeader) as caught:
        parse(buffer(invalid_vector.data), max_header_size=LIMIT)
    assert caught.value.offset <= len(invalid_vector.data)
    assert caught.value.first_bytes == invalid_vector.data[:16]


def test_invalid_is_the_same_in_pieces(invalid_vector: Vector) -> None:
    with pytest.raises(InvalidHeader) as whole:
        parse(invalid_vector.data, max_header_size=LIMIT)
    pieces = [bytes([byte]) for byte in invalid_vector.data]
    with pytest.raises(InvalidHeader) as bytewise:
        feed_all(Decoder(max_header_size=LIMIT), pieces)
    assert (bytewise.value.reason, bytewise.value.offset) == (whole.value.reason, whole.value.offset)
    for at in splits(invalid_vector.data):
        with pytest.raises(InvalidHeader) as split:
            feed_all(Decoder(max_header_size=LIMIT), [invalid_vector.data[:at], invalid_vector.data[at:]])
        assert (split.value.reason, split.value.offset) == (whole.value.reason, whole.value.offset)


def test_invalid_as_a_datagram(invalid_vector: Vector) -> None:
    with pytest.raises(InvalidHeader) as stream:
        parse(invalid_vector.data, max_header_size=LIMIT)
    with pytest.raises(InvalidHeader) as datagram:
        parse_datagram(invalid_vector.data, max_header_size=LIMIT)
    assert datagram.value.args == stream.value.args


def test_nothing_that_follows_makes_an_invalid_header_valid(invalid_vector: Vector) -> None:
    with pytest.raises(InvalidHeader):
        parse(invalid_vector.data + JUNK, max_header_size=LIMIT)


@pytest.mark.parametrize("buffer", BUFFERS, ids=["bytes", "bytearray", "memoryview", "strided-view"])
def test_incomplete(
    incomplete_vector: Vector, buffer: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    with pytest.raises(IncompleteHeader) as caught:
        parse(buffer(incomplete_vector.data), max_header_size=LIMIT)
    assert caught.value.needed >= 1


def test_incomplete_in_pieces(incomplete_vector: Vector) -> None:
    with pytest.raises(IncompleteHeader) as whole:
        parse(incomplete_vector.data, max_header_size=LIMIT)
    decoder = Decoder(max_header_size=LIMIT)
    assert feed_all(decoder, [bytes([byte]) for byte in incomplete_vector.data]) is None
    assert (decoder.header, decoder.leftover, decoder.needed) == (None, b"", whole.value.needed)


def test_incomplete_as_a_datagram_is_invalid(incomplete_vector: Vector) -> None:
    with pytest.raises(InvalidHeader) as caught:
        parse_datagram(incomplete_vector.data, max_header_size=LIMIT)
    assert (caught.value.reason, caught.value.offset) == ("truncated", len(incomplete_vector.data))
