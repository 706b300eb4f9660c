"""The keywords of `parse`, `parse_datagram` and `Decoder`: what they allow, and which values they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Decoder, Header, InvalidHeader, parse, parse_datagram

if TYPE_CHECKING:
    from collections.abc import Callable

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
V2 = Header.v2(("192.0.2.1", 56324), ("198.51.100.2", 443)).raw


def v2(command_and_family: bytes, block: bytes) -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n" + command_and_family + len(block).to_bytes(2, "big") + block


def feed(data: bytes, **options: Any) -> tuple[Header | None, int]:
    decoder = Decoder(**options)
    header = decoder.feed(data)
    return header, len(data) - len(decoder.leftover)


READERS: list[Callable[..., tuple[Header | None, int]]] = [parse, parse_datagram, feed]

reader = pytest.mark.parametrize("read", READERS, ids=["parse", "parse_datagram", "feed"])


def refused(read: Callable[..., object], data: bytes, **options: Any) -> tuple[str, int]:
    with pytest.raises(InvalidHeader) as caught:
        read(data, **options)
    return caught.value.reason, caught.value.offset


@reader
class TestVersions:
    @pytest.mark.parametrize("kind", [tuple, list, set, frozenset, iter, dict.fromkeys])
    def test_both(self, read: Callable[..., tuple[Header, int]], kind: Any) -> None:
        assert read(V1, versions=kind((1, 2)))[0].version == 1
        assert read(V2, versions=kind((2, 1)))[0].version == 2

    def test_one(self, read: Callable[..., tuple[Header, int]]) -> None:
        assert read(V1, versions=[1])[0].version == 1
        assert read(V2, versions=[2])[0].version == 2
        assert refused(read, V2, versions=[1]) == ("version-not-allowed", 0)
        assert refused(read, V1, versions=[2]) == ("version-not-allowed", 0)

    @pytest.mark.parametrize(
        "versions", [(), (0,), (3,), (1, 2, 3), (-1,), (1 << 70,), ("1",), "12", b"\3"], ids=repr
    )
    def test_values(self, read: Callable[..., object], versions: Any) -> None:
        with pytest.raises(ValueError, match=r"^versions must hold 1, 2 or both, not ") as caught:
            read(V1, versions=versions)
        assert str(caught.value).endswith(repr(versions))

    @pytest.mark.parametrize("versions", [1, None, 2.0], ids=repr)
    def test_types(self, read: Callable[..., object], versions: Any) -> None:
        kind = type(versions).__name__
        with pytest.raises(TypeError, match=f"versions must be an iterable of 1 and 2, not {kind}$"):
            read(V1, versions=versions)


@reader
class TestMaxHeaderSize:
    @pytest.mark.parametrize(("size", "accepted"), [(4096, True), (4097, False)])
    def test_default(self, read: Callable[..., tuple[Header, int]], size: int, *, accepted: bool) -> None:
        noop = size - 16 - 12 - 3
        data = v2(b"\x21\x11", bytes(12) + b"\x04" + noop.to_bytes(2, "big") + bytes(noop))
        assert len(data) == size
        if accepted:
            assert read(data)[1] == size
        else:
            assert refused(read, data) == ("oversized", 14)
            # It is refused at the length field, without waiting for more (C13).
            assert refused(read, data[:16]) == ("oversized", 14)

    def test_largest(self, read: Callable[..., tuple[Header, int]]) -> None:
        data = v2(b"\x20\x00", b"\x04\xff\xfc" + bytes(65532))
        assert read(data, max_header_size=65551)[1] == 65551
        assert refused(read, data, max_header_size=65550) == ("oversized", 14)

    def test_smallest(self, read: Callable[..., tuple[Header, int]]) -> None:
        assert read(v2(b"\x20\x00", b"") + b"payload", max_header_size=16)[1] == 16
        assert refused(read, v2(b"\x20\x00", bytes(3)), max_header_size=16) == ("oversized", 14)

    def test_version_1(self, read: Callable[..., tuple[Header, int]]) -> None:
        assert read(V1, max_header_size=len(V1))[1] == len(V1)
        reason, _ = refused(read, V1, max_header_size=len(V1) - 1)
        assert reason == "oversized"

    @pytest.mark.parametrize("size", [15, 0, -1, 65552, 1 << 40, 1 << 80, -(1 << 80), True])
    def test_values(self, read: Callable[..., object], size: int) -> None:
        with pytest.raises(ValueError, match=f"^max_header_size must be from 16 to 65551, not {size}$"):
            read(V1, max_header_size=size)

    @pytest.mark.parametrize("size", ["4096", 4096.0, None, b"\x10"], ids=repr)
    def test_types(self, read: Callable[..., object], size: Any) -> None:
        kind = type(size).__name__
        with pytest.raises(TypeError, match=f"max_header_size must be int, not {kind}$"):
            read(V1, max_header_size=size)


@reader
class TestLeniencies:
    def test_allow_mixed_families(self, read: Callable[..., tuple[Header, int]]) -> None:  # R13
        data = b"PROXY TCP4 192.0.2.4 2603::1 1 2\r\n"
        assert refused(read, data)[0] == "family-mismatch"
        header, _ = read(data, allow_mixed_families=True)
        assert header.family.name == "INET"
        assert header.source == ("192.0.2.4", 1)
        assert header.destination == ("2603::1", 2, 0, 0)

    def test_mixed_families_are_still_addresses(self, read: Callable[..., tuple[Header, int]]) -> None:
        data = b"PROXY TCP4 192.0.2.4 2603:::1 1 2\r\n"
        reason, _ = refused(read, data, allow_mixed_families=True)
        assert reason.startswith("ipv6-")

    @pytest.mark.parametrize(
        "data",
        [b"PROXY UNKNOWN\r\n", v2(b"\x21\x00", b""), v2(b"\x21\x01", b""), v2(b"\x21\x10", b"")],
        ids=["v1-unknown", "v2-unspec", "v2-unspec-stream", "v2-inet-unspec"],
    )
    def test_reject_unspec(self, read: Callable[..., tuple[Header, int]], data: bytes) -> None:  # R10, R26
        assert read(data)[0].source is None
        assert refused(read, data, reject_unspec=True)[0] == "unspec-rejected"

    def test_reject_unspec_lets_local_in(self, read: Callable[..., tuple[Header, int]]) -> None:  # R23
        assert read(v2(b"\x20\x00", b""), reject_unspec=True)[0].command.name == "LOCAL"

    @pytest.mark.parametrize(
        ("tlvs", "reason", "seen"),
        [
            (b"\x02\0\1a" + b"\x01", "tlv-truncated", ((2, b"a"),)),
            (b"\x02\0\1a" + b"\x01\0\2x", "tlv-overrun", ((2, b"a"),)),
            (b"\x05\0\x81" + bytes(129), "unique-id-too-long", ((5, bytes(129)),)),
            (b"\x20\0\x04" + bytes(4), "ssl-too-short", ((32, bytes(4)),)),
            (b"\x20\0\x06" + bytes(6), "ssl-tlv-truncated", ((32, bytes(6)),)),
            (b"\x20\0\x08" + bytes(7) + b"\1", "ssl-tlv-overrun", ((32, bytes(7) + b"\1"),)),
        ],
        ids=["truncated", "overrun", "unique-id", "ssl-too-short", "ssl-truncated", "ssl-overrun"],
    )
    def test_ignore_malformed_tlvs(  # C8, C9, C10
        self,
        read: Callable[..., tuple[Header, int]],
        tlvs: bytes,
        reason: str,
        seen: tuple[tuple[int, bytes], ...],
    ) -> None:
        data = v2(b"\x21\x11", bytes(12) + tlvs)
        assert refused(read, data)[0] == reason
        header, consumed = read(data, ignore_malformed_tlvs=True)
        assert consumed == len(data)
        assert header.tlvs == seen
        assert (header.unique_id, header.ssl) == (None, None)

    def test_a_wrong_checksum_is_never_ignored(self, read: Callable[..., object]) -> None:  # R34
        data = v2(b"\x21\x11", bytes(12) + b"\x03\0\x04" + bytes(4))
        assert refused(read, data)[0] == "checksum-mismatch"
        assert refused(read, data, ignore_malformed_tlvs=True)[0] == "checksum-mismatch"

    @pytest.mark.parametrize("name", ["allow_mixed_families", "reject_unspec", "ignore_malformed_tlvs"])
    @pytest.mark.parametrize("value", [None, 1, "yes"], ids=repr)
    def test_types(self, read: Callable[..., object], name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=f"^{name} must be bool, not {type(value).__name__}$"):
            read(V1, **{name: value})


@reader
def test_unknown_keyword(read: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="max_size"):
        read(V1, max_size=1)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        parse(V1, (1, 2))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional argument"):
        Decoder((1, 2))  # type: ignore[call-arg]
