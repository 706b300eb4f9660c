"""Headers to be sent: `Header.v1`, `v2`, `local` and `unknown`, by the sender's rules S1 to S14."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from proxyproto_rs import Command, Family, Header, Transport, parse

SOURCE = ("192.0.2.1", 56324)
DESTINATION = ("198.51.100.2", 443)
SOURCE6 = ("2001:db8::1", 56324)
DESTINATION6 = ("2001:db8::2", 443)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class TestV1:
    @pytest.mark.parametrize(
        ("source", "destination", "line"),
        [
            (SOURCE, DESTINATION, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
            (("0.0.0.0", 0), ("255.255.255.255", 65535), b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"),
            (SOURCE6, DESTINATION6, b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"),
            (("::", 0, 0, 0), ("::1", 1, 7, 9), b"PROXY TCP6 :: ::1 0 1\r\n"),
            (("::ffff:192.0.2.1", 1), ("::1", 2), b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
            ((IPv4Address(1), 1), (IPv4Address(2), 2), b"PROXY TCP4 0.0.0.1 0.0.0.2 1 2\r\n"),
            ((IPv6Address(1), 1), (IPv6Address(2), 2), b"PROXY TCP6 ::1 ::2 1 2\r\n"),
        ],
        ids=["inet", "extremes", "inet6", "four-tuple", "mapped", "IPv4Address", "IPv6Address"],
    )
    def test_line(self, source: Any, destination: Any, line: bytes) -> None:
        header = Header.v1(source, destination)
        assert header.raw == header.encode() == line
        assert (header.version, header.command, header.transport) == (1, Command.PROXY, Transport.STREAM)
        assert parse(line) == (header, len(line))

    def test_unknown(self) -> None:  # S2
        assert Header.unknown().encode() == b"PROXY UNKNOWN\r\n"
        assert Header.unknown().family is Family.UNSPEC


class TestV2:
    def test_inet(self) -> None:
        header = Header.v2(SOURCE, DESTINATION)
        block = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + b"\xdc\x04\x01\xbb"
        assert header.encode() == SIGNATURE + b"\x21\x11\0\x0c" + block
        assert (header.source, header.destination) == (SOURCE, DESTINATION)

    def test_inet6(self) -> None:
        header = Header.v2(SOURCE6, DESTINATION6, transport=Transport.DGRAM)
        block = b"".join(socket.inet_pton(socket.AF_INET6, host) for host, _ in (SOURCE6, DESTINATION6))
        assert header.encode() == SIGNATURE + b"\x21\x22\0\x24" + block + b"\xdc\x04\x01\xbb"
        assert (header.source, header.destination) == ((*SOURCE6, 0, 0), (*DESTINATION6, 0, 0))

    @pytest.mark.parametrize(
        ("path", "field"),
        [
            ("/run/app.sock", b"/run/app.sock"),
            ("", b""),
            (b"/run/app.sock", b"/run/app.sock"),
            ("/\udcff", b"/\xff"),
            (b"\0abstract", b"\0abstract"),
            ("/" * 108, b"/" * 108),
        ],
        ids=["path", "unnamed", "bytes", "not-utf8", "abstract", "longest"],
    )
    def test_unix(self, path: str | bytes, field: bytes) -> None:  # C14
        header = Header.v2(path, "/other")
        assert header.encode() == (
            SIGNATURE + b"\x21\x31\0\xd8" + field.ljust(108, b"\0") + b"/other".ljust(108, b"\0")
        )
        assert header.source == ("/run/app.sock" if path == b"/run/app.sock" else path)
        assert header.family is Family.UNIX

    def test_what_a_socket_says_of_itself_is_taken(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            header = Header.v2(client.getsockname(), client.getpeername())
            assert (header.source, header.destination) == (client.getsockname(), client.getpeername())

    def test_tlvs_keep_their_order(self) -> None:
        tlvs: list[tuple[int, bytes | bytearray | memoryview]] = [
            (0x04, b""),
            (0xE1, bytearray(b"b")),
            (0xE1, memoryview(b"a")),
            (0x01, b"h2"),
        ]
        header = Header.v2(SOURCE, DESTINATION, tlvs=iter(tlvs))
        assert header.tlvs == ((0x04, b""), (0xE1, b"b"), (0xE1, b"a"), (0x01, b"h2"))
        assert header.raw[28:] == b"\x04\0\0\xe1\0\1b\xe1\0\1a\x01\0\2h2"

    def test_tlvs_of_a_dict(self) -> None:
        assert Header.v2(SOURCE, DESTINATION, tlvs={2: b"a"}.items()).authority == "a"

    def test_checksum_is_read_back(self) -> None:  # S8, R34
        header = Header.v2(SOURCE, DESTINATION, tlvs=[(0x02, b"example.com")], checksum=True)
        assert [kind for kind, _ in header.tlvs] == [0x03, 0x02]
        assert parse(header.raw)[0] == header
        damaged = header.raw[:-1] + b"n"
        with pytest.raises(ValueError, match="CRC32C"):
            parse(damaged)

    def test_checksum_of_a_capture(self) -> None:
        """The 23 bytes that HAProxy and nginx send in their health checks."""
        assert Header.local(checksum=True).encode() == SIGNATURE + b"\x20\0\0\x07\x03\0\x04\xa9\xb8\x7e\x8f"

    def test_a_long_header(self) -> None:
        header = Header.v2(SOURCE, DESTINATION, tlvs=[(0x04, bytes(65520))])
        assert len(header.encode()) == 65551
        assert parse(header.raw, max_header_size=65551)[1] == 65551


class TestLocal:
    def test_plain(self) -> None:  # S5
        header = Header.local()
        assert header.encode() == SIGNATURE + b"\x20\0\0\0"
        assert (header.command, header.family, header.transport) == (
            Command.LOCAL,
            Family.UNSPEC,
            Transport.UNSPEC,
        )

    def test_with_tlvs(self) -> None:
        assert Header.local(tlvs=[(0xE1, b"x")]).tlvs == ((0xE1, b"x"),)


def v1(source: Any = SOURCE, destination: Any = DESTINATION) -> Header:
    return Header.v1(source, destination)


def v2(source: Any = SOURCE, destination: Any = DESTINATION, **options: Any) -> Header:
    return Header.v2(source, destination, **options)


def local(**options: Any) -> Header:
    return Header.local(**options)


NOT_SENT = [
    (v1, {"destination": DESTINATION6}, "source and destination are of different families"),
    (v2, {"destination": DESTINATION6}, "source and destination are of different families"),
    (v2, {"destination": "/run/a.sock"}, "source and destination are of different families"),
    (v1, {"source": "/a", "destination": "/b"}, "version 1 cannot carry UNIX addresses"),
    (v1, {"source": ("localhost", 1)}, "source: 'localhost' is not an IPv4 or IPv6 address"),
    (v1, {"destination": ("127.0.0.01", 1)}, "destination: '127.0.0.01' is not an IPv4 or IPv6 address"),
    (v2, {"source": ("fe80::1%eth0", 1)}, "source: 'fe80::1%eth0' is not an IPv4 or IPv6 address"),
    (v2, {"source": ("\ud800", 1)}, r"source: '\\ud800' is not an IPv4 or IPv6 address"),
    (v2, {"source": ("", 1)}, "source: '' is not an IPv4 or IPv6 address"),
    (v1, {"source": ("192.0.2.1", 65536)}, "the port of source must be from 0 to 65535, not 65536"),
    (v2, {"destination": ("192.0.2.1", -1)}, "the port of destination must be from 0 to 65535, not -1"),
    (
        v2,
        {"destination": ("192.0.2.1", 1 << 80)},
        "the port of destination must be from 0 to 65535, not 1208",
    ),
    (v2, {"source": ("192.0.2.1",)}, r"source must be \(host, port\) .*, not a tuple of 1"),
    (v2, {"source": ("192.0.2.1", 1, 2)}, r"source must be \(host, port\) .*, not a tuple of 3"),
    (v2, {"source": "a" * 109, "destination": ""}, "a UNIX address of 109 bytes, where at most 108 fit"),
    (v2, {"source": "a\0b", "destination": ""}, "a UNIX path that holds a NUL"),
    (v2, {"source": b"\0a\0", "destination": ""}, "an abstract UNIX name must .* not end with one"),
    (v2, {"transport": Transport.UNSPEC}, "addresses need a transport: stream or datagram"),
    (v2, {"tlvs": [(-1, b"")]}, "the type of a TLV must be from 0 to 255, not -1"),
    (v2, {"tlvs": [(256, b"")]}, "the type of a TLV must be from 0 to 255, not 256"),
    (v2, {"tlvs": [(0xF0, b"")]}, "TLV type 0xf0 must not be sent"),
    (local, {"tlvs": [(0xFF, b"")]}, "TLV type 0xff must not be sent"),
    (v2, {"tlvs": [(0x03, bytes(4))]}, "a CRC32C TLV is computed, not given"),
    (v2, {"tlvs": [(0x05, bytes(129))]}, "a UNIQUE_ID of 129 bytes, where at most 128 are allowed"),
    (v2, {"tlvs": [(0x04, bytes(65536))]}, "a TLV of type 0x04 with 65536 bytes, where at most 65535 fit"),
    (v2, {"tlvs": [(0x04, bytes(65521))]}, "65536 bytes of addresses and TLVs, where at most 65535 fit"),
    (v2, {"tlvs": [(0x20, bytes(4))]}, "an SSL TLV without its five fixed bytes, or with broken sub-TLVs"),
    (v2, {"tlvs": [(0x20, b"\1" + bytes(4))]}, "an SSL TLV that says TLS needs a VERSION sub-TLV"),
]


@pytest.mark.parametrize(("build", "arguments", "text"), NOT_SENT)
def test_what_cannot_be_sent(build: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        build(**arguments)


WRONG_TYPES = [
    (v1, {"source": None}, r"source must be \(host, port\), .*, not NoneType"),
    (v1, {"destination": ["192.0.2.1", 1]}, r"destination must be \(host, port\), .*, not list"),
    (v1, {"source": (1, 1)}, "the host of source must be str, not int"),
    (v1, {"source": (b"192.0.2.1", 1)}, "the host of source must be str, not bytes"),
    (v1, {"source": ("192.0.2.1", "1")}, "the port of source must be int, not str"),
    (v1, {"source": ("192.0.2.1", 1.0)}, "the port of source must be int, not float"),
    (v2, {"transport": 1}, "transport must be a member of Transport, not int"),
    (v2, {"transport": Family.INET}, "transport must be a member of Transport, not Family"),
    (v2, {"tlvs": 1}, r"tlvs must be an iterable of pairs \(type, value\), not int"),
    (v2, {"tlvs": [1]}, r"tlvs must be an iterable of pairs \(type, value\), not int"),
    (local, {"tlvs": [(1, b"", 2)]}, r"tlvs must be an iterable of pairs \(type, value\), not tuple"),
    (local, {"tlvs": {2: b"a"}}, r"tlvs must be an iterable of pairs \(type, value\), not int"),
    (v2, {"tlvs": [("1", b"")]}, "the type of a TLV must be int, not str"),
    (
        v2,
        {"tlvs": [(1, "h2")]},
        r"the value of a TLV must be bytes-like, not str: were bytes \(b\"...\"\) meant\?",
    ),
    (v2, {"tlvs": [(1, None)]}, "the value of a TLV must be bytes, bytearray or memoryview, not NoneType"),
    (v2, {"checksum": 1}, "checksum must be bool, not int"),
    (local, {"checksum": None}, "checksum must be bool, not NoneType"),
]


@pytest.mark.parametrize(("build", "arguments", "text"), WRONG_TYPES)
def test_wrong_types(build: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=f"^{text}$"):
        build(**arguments)


def test_an_iterator_of_tlvs_may_fail() -> None:
    def failing() -> Any:
        yield (1, b"h2")
        raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        Header.v2(SOURCE, DESTINATION, tlvs=failing())
