"""The codec and a second reader, written from the rules alone, agree about the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import independent_reader
from codec.independent_reader import Incomplete, Invalid, Reading
from codec.test_properties import DATA
from proxyproto_rs import Header, IncompleteHeader, InvalidHeader, parse

if TYPE_CHECKING:
    from codec.conftest import Vector


def ask_codec(data: bytes, max_header_size: int) -> Reading | str:
    try:
        header, consumed = parse(data, max_header_size=max_header_size)
    except IncompleteHeader:
        return "incomplete"
    except InvalidHeader:
        return "invalid"
    return reading(header, consumed)


def ask_reader(data: bytes, max_header_size: int) -> Reading | str:
    try:
        return independent_reader.read(data, max_header_size=max_header_size)
    except Incomplete:
        return "incomplete"
    except Invalid:
        return "invalid"


def reading(header: Header, consumed: int) -> Reading:
    return Reading(
        header.version,
        header.command.value,
        header.family.value,
        header.transport.value,
        end(header.source, header.source_ip),
        end(header.destination, header.destination_ip),
        header.tlvs,
        consumed,
    )


def end(address: Any, ip: Any) -> Any:
    return address if ip is None else (ip, address[1])


@pytest.mark.parametrize("max_header_size", [4096, 65551])
def test_vectors(vector: Vector, max_header_size: int) -> None:
    assert ask_codec(vector.data, max_header_size) == ask_reader(vector.data, max_header_size)


@given(DATA, st.sampled_from([4096, 65551]))
def test_any_bytes(data: bytes, max_header_size: int) -> None:
    assert ask_codec(data, max_header_size) == ask_reader(data, max_header_size)


@given(DATA)
def test_a_right_checksum(data: bytes) -> None:
    """Mutations cannot guess a checksum. This gives the same bytes as TLVs, behind the right checksum."""
    block = b"\xc0\0\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb\x03\0\x04\0\0\0\0" + data
    header = independent_reader.SIGNATURE + b"\x21\x11" + len(block).to_bytes(2, "big") + block
    checksum = independent_reader.crc32c(header).to_bytes(4, "big")
    header = header[:31] + checksum + header[35:]
    assert ask_codec(header, 4096) == ask_reader(header, 4096)
