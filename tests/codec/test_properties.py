"""Any bytes, in any pieces and buffers, raise only documented exceptions, and give one answer however they arrive."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxyproto_rs import (
    Decoder,
    Header,
    IncompleteHeader,
    InvalidHeader,
    Transport,
    parse,
    parse_datagram,
)
from proxyproto_rs.exceptions import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def nearly_v1() -> st.SearchStrategy[bytes]:
    words = st.sampled_from(
        b"TCP4|TCP6|UNKNOWN|192.0.2.1|255.255.255.255|1.2.3.04|::1|1::2:3|::ffff:1.2.3.4".split(b"|")
        + b"0|80|080|65535|65536||\xff|\r|\n|\0".split(b"|")
    )
    line = st.lists(words, max_size=7).map(lambda words: b"PROXY " + b" ".join(words))
    return st.builds(bytes.__add__, line, st.sampled_from([b"\r\n", b"\n", b"\r", b"", b"\r\npayload"]))


def nearly_v2() -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30, 0xE0, 0xEA, 0xEE])
    tlv = st.builds(
        lambda kind, value, lie: bytes([kind]) + (len(value) + lie).to_bytes(2, "big") + value,
        kinds,
        st.binary(max_size=140),
        st.sampled_from([0, 0, 0, 0, 1]),
    )
    block = st.builds(
        bytes.__add__, st.sampled_from([0, 12, 36, 216]).map(bytes), st.lists(tlv, max_size=4).map(b"".join)
    )
    return st.builds(
        lambda fixed, block, lie: SIGNATURE + fixed + max(len(block) + lie, 0).to_bytes(2, "big") + block,
        st.sampled_from(
            [b"\x20\x00", b"\x20\x11", b"\x21\x00", b"\x21\x11", b"\x21\x12", b"\x21\x21", b"\x21\x31"]
        ),
        block,
        st.sampled_from([0, 0, 0, 0, -1, 1]),
    )


def damaged_vectors() -> st.SearchStrategy[bytes]:
    """Make vectors with one byte changed."""
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
    data = st.sampled_from(
        [bytes.fromhex(vector["hex"]) for vector in vectors if 0 < len(vector["hex"]) < 1200]
    )
    return st.builds(
        lambda data, at, byte: data[: at % len(data)] + bytes([byte]) + data[at % len(data) + 1 :],
        data,
        st.integers(0, 600),
        st.integers(0, 255),
    )


DATA = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda data: SIGNATURE + data),
    nearly_v1(),
    nearly_v2(),
    damaged_vectors(),
)

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "versions": st.sampled_from([(1,), (2,), (1, 2)]),
        "max_header_size": st.integers(16, 300),
        "allow_mixed_families": st.booleans(),
        "reject_unspec": st.booleans(),
        "ignore_malformed_tlvs": st.booleans(),
    },
)

BUFFERS = st.sampled_from([bytes, bytearray, memoryview])

Outcome = tuple[str, object, object]


def outcome(read: Callable[..., tuple[Header, int]], data: Any, options: dict[str, Any]) -> Outcome:
    """Read the data and every attribute of its header. Only documented exceptions may be raised."""
    try:
        header, consumed = read(data, **options)
    except IncompleteHeader as error:
        return ("incomplete" if error.needed >= 1 else "wrong", error.needed, None)
    except InvalidHeader as error:
        as_documented = error.reason in REASONS and 0 <= error.offset <= len(data)
        return ("invalid" if as_documented else "wrong", error.reason, error.offset)
    assert header.raw == data[:consumed]
    look_at_everything(header)
    return ("valid", header, consumed)


def look_at_everything(header: Header) -> None:
    for value in (header, header.ssl):
        for name in dir(value):
            if not name.startswith("_"):
                getattr(value, name)
    assert repr(header).startswith("<Header v")
    assert repr(header.ssl)
    assert pickle.loads(pickle.dumps(header)) == header


@given(DATA, OPTIONS, BUFFERS)
@example(b"", {}, bytes)
def test_parse(data: bytes, options: dict[str, Any], buffer: Callable[[bytes], Any]) -> None:
    alone = outcome(parse, buffer(data), options)
    assert alone[0] != "wrong"
    # More bytes may change the answer only if it was incomplete.
    assert alone[0] == "incomplete" or outcome(parse, data + b"\0\r\n\xff", options) == alone


@given(DATA, OPTIONS, BUFFERS)
def test_parse_datagram(data: bytes, options: dict[str, Any], buffer: Callable[[bytes], Any]) -> None:
    stream = outcome(parse, data, options)
    if stream[0] == "incomplete":
        stream = ("invalid", "truncated", len(data))
    assert outcome(parse_datagram, buffer(data), options) == stream


@given(DATA, OPTIONS, BUFFERS, st.lists(st.integers(0, 600), max_size=5))
def test_decoder(
    data: bytes, options: dict[str, Any], buffer: Callable[[bytes], Any], cuts: list[int]
) -> None:
    decoder = Decoder(**options)

    def feed_pieces(data: bytes, **_: Any) -> tuple[Header, int]:
        places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
        for start, end in itertools.pairwise(places):
            decoder.feed(buffer(data[start:end]))
        if decoder.header is None:
            raise IncompleteHeader(decoder.needed)
        return decoder.header, len(data) - len(decoder.leftover)

    assert outcome(feed_pieces, data, options) == outcome(parse, data, options)


@given(DATA)
def test_leniency_only_adds(data: bytes) -> None:
    """A header that is valid without a leniency is the same header with it."""
    strict = outcome(parse, data, {})
    lenient = outcome(parse, data, {"allow_mixed_families": True, "ignore_malformed_tlvs": True})
    assert strict[0] != "valid" or lenient == strict


HOSTS = st.one_of(
    st.tuples(*[st.ip_addresses(v=4).map(str)] * 2), st.tuples(*[st.ip_addresses(v=6).map(str)] * 2)
)
PORTS = st.integers(0, 65535)
# AUTHORITY, CRC32C, SSL and NETNS have rules of their own.
KINDS = st.integers(0, 0xEF).filter(lambda kind: kind not in {0x02, 0x03, 0x20, 0x30})
TLVS = st.lists(st.tuples(KINDS, st.binary(max_size=128)), max_size=5)


@given(HOSTS, PORTS, PORTS, TLVS, st.sampled_from([Transport.STREAM, Transport.DGRAM]), st.booleans())
def test_what_is_built_is_read(
    hosts: tuple[str, str],
    source_port: int,
    destination_port: int,
    tlvs: list[tuple[int, bytes]],
    transport: Transport,
    checksum: bool,
) -> None:
    source, destination = (hosts[0], source_port), (hosts[1], destination_port)
    header = Header.v2(source, destination, transport=transport, tlvs=tlvs, checksum=checksum)
    again, consumed = parse(header.encode())
    assert (again, consumed) == (header, len(header.raw))
    assert [tlv for tlv in again.tlvs if tlv[0] != 0x03] == tlvs
    line = Header.v1(source, destination)
    assert parse(line.encode()) == (line, len(line.raw))
    for read in (again, parse(line.raw)[0]):
        assert (str(read.source_ip), str(read.destination_ip)) == hosts
        assert read.transport is (transport if read.version == 2 else Transport.STREAM)
