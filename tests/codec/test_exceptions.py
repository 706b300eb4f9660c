"""The exceptions: their tree, their data, and each text."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxyproto_rs import (
    IncompleteHeader,
    InvalidHeader,
    ProxyProtocolError,
    exceptions,
    parse,
    parse_datagram,
)
from proxyproto_rs.exceptions import REASONS

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"


def v2(block: bytes, command_and_family: bytes = b"\x21\x11") -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n" + command_and_family + len(block).to_bytes(2, "big") + block


def v1(source: str = "192.0.2.1", port: str = "1", *, protocol: str = "TCP4") -> bytes:
    destination = "198.51.100.2" if protocol == "TCP4" else "2001:db8::2"
    return f"PROXY {protocol} {source} {destination} {port} 443\r\n".encode()


def with_tlvs(tlvs: bytes) -> bytes:
    return v2(bytes(12) + tlvs)


@dataclass(frozen=True)
class Published:
    """One reason, as it is published: what it means, and a header that has it."""

    outcome: str
    text: str
    offset: int
    data: bytes
    options: dict[str, Any] = field(default_factory=dict)


PUBLISHED = {
    "bad-signature": Published("missing-header", "no PROXY signature", 0, b"GET / HTTP/1.1\r\n"),
    "version-not-allowed": Published(
        "version-not-allowed", "a header of a version that is not allowed here", 0, LINE, {"versions": [2]}
    ),
    "oversized": Published(
        "oversized",
        "longer than the largest header accepted here",
        14,
        v2(bytes(13)),
        {"max_header_size": 28},
    ),
    "truncated": Published("malformed", "the datagram ends inside its header", 44, LINE[:-1]),
    "unspec-rejected": Published(
        "malformed",
        "a header without addresses is not accepted here",
        13,
        v2(b"", b"\x21\x00"),
        {"reject_unspec": True},
    ),
    "no-space-after-proxy": Published("malformed", "no space after PROXY", 5, b"PROXY\tTCP4"),
    "unknown-protocol": Published(
        "malformed", "the protocol is none of TCP4, TCP6 and UNKNOWN", 9, v1(protocol="TCP5")
    ),
    "line-too-long": Published(
        "malformed", "no CRLF within the first 107 bytes", 107, b"PROXY UNKNOWN".ljust(108)
    ),
    "stray-line-break": Published("malformed", "a CR or an LF by itself", 20, v1("192.0.2.1\n")),
    "missing-field": Published("malformed", "an address or a port is missing", 11, v1("", "1")),
    "extra-field": Published("malformed", "more than two addresses and two ports", 43, LINE[:-2] + b" 1\r\n"),
    "family-mismatch": Published("malformed", "an address is not of the announced family", 11, v1("::1")),
    "ipv4-bad-character": Published(
        "malformed", "neither a digit nor a dot in an IPv4 address", 19, v1("192.0.2.x")
    ),
    "ipv4-not-four-octets": Published(
        "malformed", "an IPv4 address without exactly four numbers", 18, v1("192.0.2")
    ),
    "ipv4-leading-zero": Published("malformed", "leading zero in an IPv4 address", 17, v1("192.0.02.1")),
    "ipv4-octet-too-large": Published(
        "malformed", "a number larger than 255 in an IPv4 address", 11, v1("256.0.2.1")
    ),
    "ipv6-bad-character": Published(
        "malformed",
        "neither a hex digit nor a colon in an IPv6 address",
        21,
        v1("2001:db8::g", protocol="TCP6"),
    ),
    "ipv6-group-too-long": Published(
        "malformed", "more than four digits in a group of an IPv6 address", 13, v1("::12345", protocol="TCP6")
    ),
    "ipv6-empty-group": Published(
        "malformed", "an empty group in an IPv6 address", 11, v1(":1::", protocol="TCP6")
    ),
    "ipv6-second-double-colon": Published(
        "malformed", "a second :: in an IPv6 address", 14, v1("::1::", protocol="TCP6")
    ),
    "ipv6-not-eight-groups": Published(
        "malformed", "an IPv6 address that is not of 128 bits", 16, v1("1:2:3", protocol="TCP6")
    ),
    "port-not-decimal": Published("malformed", "not a digit in a port", 34, v1(port="+80")),
    "port-leading-zero": Published("malformed", "leading zero in a port", 34, v1(port="080")),
    "port-too-large": Published("malformed", "a port larger than 65535", 34, v1(port="65536")),
    "bad-version": Published("malformed", "the version nibble is not 2", 12, v2(bytes(12), b"\x31\x11")),
    "bad-command": Published(
        "malformed", "the command is neither LOCAL nor PROXY", 12, v2(bytes(12), b"\x22\x11")
    ),
    "bad-family": Published("malformed", "undefined address family", 13, v2(bytes(12), b"\x21\x41")),
    "bad-transport": Published("malformed", "undefined transport", 13, v2(bytes(12), b"\x21\x13")),
    "length-too-short": Published("malformed", "the length cannot hold the addresses", 14, v2(bytes(11))),
    "tlv-truncated": Published("malformed", "a TLV without its type and length", 28, with_tlvs(b"\x01")),
    "tlv-overrun": Published(
        "malformed", "the value of a TLV ends behind the header", 28, with_tlvs(b"\x01\0\1")
    ),
    "unique-id-too-long": Published(
        "malformed", "a UNIQUE_ID of more than 128 bytes", 28, with_tlvs(b"\x05\0\x81" + bytes(129))
    ),
    "ssl-too-short": Published(
        "malformed", "an SSL TLV of less than five bytes", 31, with_tlvs(b"\x20\0\4" + bytes(4))
    ),
    "ssl-tlv-truncated": Published(
        "malformed",
        "an SSL sub-TLV without its type and length",
        36,
        with_tlvs(b"\x20\0\6" + bytes(6)),
    ),
    "ssl-tlv-overrun": Published(
        "malformed",
        "the value of an SSL sub-TLV ends behind the SSL TLV",
        36,
        with_tlvs(b"\x20\0\x08" + bytes(7) + b"\1"),
    ),
    "checksum-length": Published(
        "bad-checksum", "a CRC32C TLV that is not of four bytes", 28, with_tlvs(b"\x03\0\3" + bytes(3))
    ),
    "checksum-mismatch": Published(
        "bad-checksum", "the CRC32C does not match the header", 31, with_tlvs(b"\x03\0\4" + bytes(4))
    ),
    "checksum-twice": Published(
        "bad-checksum", "a second CRC32C TLV", 35, with_tlvs(b"\x03\0\4" + bytes(4) + b"\x03\0\4" + bytes(4))
    ),
}


def test_tree() -> None:
    assert ProxyProtocolError.__mro__[1] is ValueError
    assert IncompleteHeader.__mro__[1] is ProxyProtocolError
    assert InvalidHeader.__mro__[1] is ProxyProtocolError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (IncompleteHeader(1), "incomplete PROXY header: at least 1 more byte needed"),
        (IncompleteHeader(12), "incomplete PROXY header: at least 12 more bytes needed"),
        (InvalidHeader("port-leading-zero", 27), "invalid PROXY header at byte 27: leading zero in a port"),
        (
            InvalidHeader("bad-signature", 0, b"\x10\x1e"),
            "invalid PROXY header at byte 0: no PROXY signature"
            " (it starts with 10 1e, which looks like an MQTT CONNECT)",
        ),
        (
            InvalidHeader("oversized", 14, b"\r\n\r\n"),
            "invalid PROXY header at byte 14: longer than the largest header accepted here"
            " (it starts with 0d 0a 0d 0a)",
        ),
        (InvalidHeader("of-a-later-version", 3), "invalid PROXY header at byte 3: of-a-later-version"),
    ],
    ids=["one-byte", "bytes", "invalid", "stranger", "first-bytes", "unknown-reason"],
)
def test_text(error: ProxyProtocolError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "error",
    [IncompleteHeader(5), InvalidHeader("oversized", 14, b"\r\n\r\n")],
    ids=lambda error: type(error).__name__,
)
def test_pickles_and_copies(error: ProxyProtocolError, protocol: int) -> None:
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == str(error)


def test_parse_says_what_is_missing() -> None:
    with pytest.raises(IncompleteHeader) as caught:
        parse(b"PROXY UNKNOWN\r")
    assert caught.value.needed == 1


def test_parse_says_what_is_wrong() -> None:
    with pytest.raises(InvalidHeader) as caught:
        parse(b"\x10\x1e\x00\x04MQTT\x04\x02\x00\x3c\x00\x12client")
    error = caught.value
    assert (error.reason, error.offset) == ("bad-signature", 0)
    assert error.first_bytes == b"\x10\x1e\x00\x04MQTT\x04\x02\x00\x3c\x00\x12cl"
    assert str(error) == (
        "invalid PROXY header at byte 0: no PROXY signature"
        " (it starts with 10 1e 00 04 4d 51 54 54 04 02 00 3c 00 12 63 6c, which looks like an MQTT CONNECT)"
    )


def test_reasons_are_published_with_their_outcomes() -> None:
    assert dict(REASONS) == {code: published.outcome for code, published in PUBLISHED.items()}
    with pytest.raises(TypeError):
        REASONS["mine"] = "malformed"  # type: ignore[index]


@pytest.mark.parametrize("code", PUBLISHED)
def test_reason(code: str) -> None:
    published = PUBLISHED[code]
    read = parse_datagram if code == "truncated" else parse
    with pytest.raises(InvalidHeader) as caught:
        read(published.data, **published.options)
    assert (caught.value.reason, caught.value.offset) == (code, published.offset)
    assert str(caught.value).startswith(
        f"invalid PROXY header at byte {published.offset}: {published.text} ("
    )


def test_the_tree_is_documented() -> None:
    assert exceptions.__doc__ is not None
    for name in exceptions.__all__:
        assert name in exceptions.__doc__ or name == "REASONS"
