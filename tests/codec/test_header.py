"""`Header`: its attributes, its TLVs as views, and that it is a value."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from proxyproto_rs import Command, Family, Header, Transport, parse

SOURCE = ("192.0.2.1", 56324)
DESTINATION = ("198.51.100.2", 443)


def with_tlvs(*tlvs: tuple[int, bytes]) -> Header:
    """Read a header with these TLVs, even if our encoder would refuse to build it."""
    block = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + (56324).to_bytes(2, "big") + (443).to_bytes(2, "big")
    for kind, value in tlvs:
        block += bytes([kind]) + len(value).to_bytes(2, "big") + value
    return parse(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(block).to_bytes(2, "big") + block)[0]


HEADERS = {
    "v1": Header.v1(SOURCE, DESTINATION),
    "v1-inet6": Header.v1(("2001:db8::1", 1), ("2001:db8::2", 2)),
    "unknown": Header.unknown(),
    "v2": Header.v2(SOURCE, DESTINATION, tlvs=[(0x02, b"example.com"), (0xE1, b"")], checksum=True),
    "v2-dgram": Header.v2(SOURCE, DESTINATION, transport=Transport.DGRAM),
    "unix": Header.v2("/run/client.sock", "/run/server.sock"),
    "abstract": Header.v2(b"\0client", b"\0server"),
    "local": Header.local(),
}


class TestValue:
    @pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
    def test_equals_its_bytes_read_again(self, header: Header) -> None:
        again, consumed = parse(header.raw)
        assert consumed == len(header.raw)
        assert again == header
        assert hash(again) == hash(header)
        assert {header: "found"}[again] == "found"

    def test_differs_from_another(self) -> None:
        headers = list(HEADERS.values())
        assert len(set(headers)) == len(headers)
        assert all(headers[0] != other for other in headers[1:])

    @pytest.mark.parametrize(
        "other", [None, 1, "", HEADERS["v1"].raw], ids=["None", "int", "str", "its bytes"]
    )
    def test_differs_from_what_is_no_header(self, other: object) -> None:
        assert HEADERS["v1"] != other
        assert (HEADERS["v1"] == other) is False

    def test_does_not_sort(self) -> None:
        with pytest.raises(TypeError, match="'<' not supported"):
            HEADERS["v1"] < HEADERS["v2"]  # type: ignore[operator]  # noqa: B015

    @pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickles(self, header: Header, protocol: int) -> None:
        again = pickle.loads(pickle.dumps(header, protocol))
        assert again == header
        assert (again.source, again.destination, again.tlvs) == (
            header.source,
            header.destination,
            header.tlvs,
        )

    @pytest.mark.parametrize(
        ("data", "options"),
        [
            (b"PROXY TCP4 192.0.2.4 2603::1 1 2\r\n", {"allow_mixed_families": True}),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0d" + bytes(12) + b"\x01", {"ignore_malformed_tlvs": True}),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x20\0\xff\xff" + b"\x04\xff\xfc" + bytes(65532),
                {"max_header_size": 65551},
            ),
        ],
        ids=["mixed", "malformed", "long"],
    )
    def test_pickles_what_only_an_option_accepts(self, data: bytes, options: dict[str, Any]) -> None:
        header, _ = parse(data, **options)
        again = pickle.loads(pickle.dumps(header))
        assert again == header
        assert (again.source, again.destination, again.tlvs) == (
            header.source,
            header.destination,
            header.tlvs,
        )

    def test_copies_to_itself(self) -> None:
        header = HEADERS["v2"]
        assert copy.copy(header) is header
        assert copy.deepcopy([header])[0] is header

    @pytest.mark.parametrize("name", ["version", "source", "raw", "anything"])
    def test_cannot_be_changed(self, name: str) -> None:
        with pytest.raises(AttributeError):
            setattr(HEADERS["v1"], name, 1)

    def test_cannot_be_made_by_its_class(self) -> None:
        with pytest.raises(TypeError, match=r"^cannot create 'proxyproto_rs.Header' instances$"):
            Header()

    def test_cannot_be_derived_from(self) -> None:
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Derived", (Header,), {})

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("v1", "<Header v1 PROXY INET/STREAM ('192.0.2.1', 56324) -> ('198.51.100.2', 443)>"),
            ("v2", "<Header v2 PROXY INET/STREAM ('192.0.2.1', 56324) -> ('198.51.100.2', 443) 3 TLVs>"),
            ("unknown", "<Header v1 PROXY UNSPEC/UNSPEC>"),
            ("unix", "<Header v2 PROXY UNIX/STREAM '/run/client.sock' -> '/run/server.sock'>"),
            ("abstract", r"<Header v2 PROXY UNIX/STREAM b'\x00client' -> b'\x00server'>"),
            ("local", "<Header v2 LOCAL>"),
        ],
    )
    def test_repr(self, name: str, text: str) -> None:
        assert repr(HEADERS[name]) == text

    def test_repr_of_one_tlv(self) -> None:
        assert repr(Header.local(tlvs=[(0x04, b"")])) == "<Header v2 LOCAL 1 TLV>"


class TestAddresses:
    def test_are_kept(self) -> None:
        header = HEADERS["v2"]
        assert header.source is header.source
        assert header.destination is header.destination

    def test_ip_objects(self) -> None:
        assert HEADERS["v2"].source_ip == IPv4Address("192.0.2.1")
        assert HEADERS["v2"].destination_ip == IPv4Address("198.51.100.2")
        assert HEADERS["v1-inet6"].source_ip == IPv6Address("2001:db8::1")

    @pytest.mark.parametrize("name", ["unknown", "local"])
    def test_real_endpoints_apply(self, name: str) -> None:
        header = HEADERS[name]
        assert (header.source, header.destination) == (None, None)
        assert (header.source_ip, header.destination_ip) == (None, None)

    def test_unix_has_no_ip(self) -> None:
        assert (HEADERS["unix"].source_ip, HEADERS["unix"].destination_ip) == (None, None)

    def test_local_ignores_its_family_byte(self) -> None:  # R23
        header, _ = parse(b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c" + bytes(12))
        assert (header.command, header.family, header.transport) == (
            Command.LOCAL,
            Family.UNSPEC,
            Transport.UNSPEC,
        )
        assert header.source is None


class TestTlvs:
    def test_wire_order_with_duplicates(self) -> None:  # C11
        header = with_tlvs((0xE1, b"a"), (0x04, b""), (0xE1, b"b"))
        assert header.tlvs == ((0xE1, b"a"), (0x04, b""), (0xE1, b"b"))
        assert header.get_tlv(0xE1) == b"a"
        assert header.get_tlv(type=0x04) == b""
        assert header.get_tlv(0x05) is None

    def test_v1_has_none(self) -> None:
        assert HEADERS["v1"].tlvs == ()
        assert HEADERS["v1"].get_tlv(0x02) is None

    @pytest.mark.parametrize("kind", [-1, 256, 1 << 80])
    def test_type_out_of_range(self, kind: int) -> None:
        with pytest.raises(ValueError, match=f"^type must be from 0 to 255, not {kind}$"):
            HEADERS["v2"].get_tlv(kind)

    def test_type_is_no_int(self) -> None:
        with pytest.raises(TypeError, match=r"^type must be int, not str$"):
            HEADERS["v2"].get_tlv("2")  # type: ignore[arg-type]

    def test_without_any(self) -> None:
        header = with_tlvs()
        for name in VIEWS:
            assert getattr(header, name) is None
        assert header.ssl is None

    @pytest.mark.parametrize(
        ("view", "kind", "value", "expected"),
        [
            ("alpn", 0x01, b"h2", b"h2"),
            ("alpn", 0x01, b"\xff\x00", b"\xff\x00"),
            ("authority", 0x02, b"example.com", "example.com"),
            ("authority", 0x02, "bücher.example".encode(), "bücher.example"),
            ("authority", 0x02, b"", ""),
            ("unique_id", 0x05, b"\x00\xff", b"\x00\xff"),
            ("unique_id", 0x05, bytes(128), bytes(128)),
            ("netns", 0x30, b"blue", "blue"),
            ("aws_vpc_endpoint_id", 0xEA, b"\x01vpce-08d2bf15fac5001c9", "vpce-08d2bf15fac5001c9"),
            ("azure_private_endpoint_link_id", 0xEE, b"\x01\x01\x02\x03\x04", 0x04030201),
            ("gcp_psc_connection_id", 0xE0, b"\xff\0\0\0\0\0\0\x01", 0xFF00000000000001),
        ],
    )
    def test_view(self, view: str, kind: int, value: bytes, expected: object) -> None:
        assert getattr(with_tlvs((kind, value)), view) == expected

    @pytest.mark.parametrize(
        ("view", "kind", "value"),
        [
            ("authority", 0x02, b"caf\xe9"),
            ("authority", 0x02, b"\xed\xa0\x80"),
            ("authority", 0x02, b"a\0b"),
            ("authority", 0x02, b"a\nb"),
            ("authority", 0x02, b"a\x1b[31mb"),
            ("authority", 0x02, b"a\x7fb"),
            ("authority", 0x02, "a\x85b".encode()),
            ("netns", 0x30, "blå".encode()),
            ("netns", 0x30, b"a\r"),
            ("aws_vpc_endpoint_id", 0xEA, b"\x02vpce-1"),
            ("aws_vpc_endpoint_id", 0xEA, b"\x01vpce\n"),
            ("aws_vpc_endpoint_id", 0xEA, b""),
            ("azure_private_endpoint_link_id", 0xEE, b"\x01\x01\x02\x03"),
            ("azure_private_endpoint_link_id", 0xEE, b"\x02\x01\x02\x03\x04"),
            ("gcp_psc_connection_id", 0xE0, bytes(7)),
            ("gcp_psc_connection_id", 0xE0, bytes(9)),
        ],
    )
    def test_what_is_not_valid_has_no_view_and_stays_in_tlvs(
        self, view: str, kind: int, value: bytes
    ) -> None:
        header = with_tlvs((kind, value))
        assert getattr(header, view) is None
        assert header.tlvs == ((kind, value),)
        assert header.get_tlv(kind) == value


VIEWS = (
    "alpn",
    "authority",
    "unique_id",
    "netns",
    "aws_vpc_endpoint_id",
    "azure_private_endpoint_link_id",
    "gcp_psc_connection_id",
)


def test_enum_members_are_python_enums() -> None:
    header = HEADERS["v2"]
    assert header.command is Command.PROXY
    assert header.family is Family.INET
    assert header.transport is Transport.STREAM
    assert header.version == 2
