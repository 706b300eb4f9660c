"""What `parse`, `parse_datagram` and `Decoder.feed` take as data."""

from __future__ import annotations

import tracemalloc
from array import array
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Decoder, Header, parse, parse_datagram

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = Header.v2(("192.0.2.1", 56324), ("198.51.100.2", 443)).raw


class BytesSubclass(bytes):
    pass


class BytearraySubclass(bytearray):
    pass


def feed(data: Any) -> tuple[Header | None, int]:
    decoder = Decoder()
    header = decoder.feed(data)
    return header, len(data) * getattr(data, "itemsize", 1) - len(decoder.leftover)


READERS: list[Callable[[Any], tuple[Header | None, int]]] = [parse, parse_datagram, feed]

ACCEPTED: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytes-subclass": BytesSubclass,
    "bytearray": bytearray,
    "bytearray-subclass": BytearraySubclass,
    "memoryview": memoryview,
    "writable-view": lambda data: memoryview(bytearray(data)),
    "sliced-view": lambda data: memoryview(b"12" + data)[2:],
    "reversed-view": lambda data: memoryview(data[::-1])[::-1],
    "view-of-shorts": lambda data: memoryview(array("H", data + b"\0" * (len(data) % 2))),
    "view-of-rows": lambda data: memoryview(data + b"\0" * (-len(data) % 4)).cast(
        "B", (-(-len(data) // 4), 4)
    ),
}


@pytest.mark.parametrize("read", READERS, ids=["parse", "parse_datagram", "feed"])
@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED.keys())
@pytest.mark.parametrize("following", [0, 2, 1 << 20], ids=["alone", "followed", "followed-by-a-mebibyte"])
def test_accepted(
    read: Callable[[Any], tuple[Header | None, int]], make: Callable[[bytes], Any], following: int
) -> None:
    header, _ = read(make(HEADER + bytes(following)))
    assert header is not None
    assert header.raw == HEADER
    assert header.source == ("192.0.2.1", 56324)


@pytest.mark.parametrize("read", READERS, ids=["parse", "parse_datagram", "feed"])
@pytest.mark.parametrize(
    "data",
    [None, 1, 1.5, [80, 82], (80,), array("B", b"PROXY"), object()],
    ids=lambda data: type(data).__name__,
)
def test_refused(read: Callable[[Any], object], data: object) -> None:
    kind = type(data).__name__
    with pytest.raises(TypeError, match=f"^data must be bytes, bytearray or memoryview, not {kind}$"):
        read(data)


@pytest.mark.parametrize("read", READERS, ids=["parse", "parse_datagram", "feed"])
def test_text_is_asked_whether_bytes_were_meant(read: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r'^data must be bytes-like, not str: were bytes \(b"..."\) meant\?$'):
        read("PROXY UNKNOWN\r\n")


@pytest.mark.parametrize("read", READERS, ids=["parse", "parse_datagram", "feed"])
def test_a_released_view_is_a_value_error(read: Callable[[Any], object]) -> None:
    view = memoryview(HEADER)
    view.release()
    with pytest.raises(ValueError, match="released memoryview"):
        read(view)


def test_data_is_positional_only() -> None:
    with pytest.raises(TypeError, match="positional-only"):
        parse(data=HEADER)  # type: ignore[call-arg]


def test_a_header_does_not_change_with_its_buffer() -> None:
    buffer = bytearray(HEADER)
    header, _ = parse(buffer)
    view_header, _ = parse(memoryview(buffer))
    decoder = Decoder()
    decoder.feed(buffer[:20])
    buffer[:] = bytes(len(buffer))
    assert header.raw == view_header.raw == HEADER
    assert decoder.feed(HEADER[20:]) == header


def test_a_buffer_is_not_kept() -> None:
    buffer = bytearray(HEADER + b"payload")
    parse(buffer)
    parse(memoryview(buffer))
    buffer.clear()  # it raises BufferError while a view exists


@pytest.mark.parametrize("make", [memoryview, bytearray], ids=["memoryview", "bytearray"])
def test_what_follows_a_header_is_not_copied(make: Callable[[bytes], Any]) -> None:
    data = make(HEADER + bytes(8 << 20))
    tracemalloc.start()
    try:
        parse(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16
