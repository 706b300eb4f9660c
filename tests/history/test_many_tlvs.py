"""A header with as many TLVs as fit. The time to read it must grow in proportion to its size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from peers import SIGNATURE
from proxyproto_rs import Decoder, Header, parse

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 1_300
MANY = 16 * FEW
MOST = 21_000

# The ratio should be 16. It is measured as 13 to 28, because each TLV becomes a Python object. Quadratic work
# gives 256.
LINEAR = 100


def header_of(count: int) -> bytes:
    """Return a header with `count` TLVs. All are empty, so each takes three bytes."""
    block = bytes(12) + b"\x04\0\0" * count
    return SIGNATURE + b"\x21\x11" + len(block).to_bytes(2, "big") + block


def growth(work: Callable[[bytes], object]) -> float:
    """Return the factor by which the work grows from FEW to MANY: the least processor time of each, taken in turns.

    It is a ratio of two times, so it does not depend on the machine's speed.
    """
    few, many = header_of(FEW), header_of(MANY)
    times = [(cost(work, few), cost(work, many)) for _ in range(15)]
    return min(time for _, time in times) / min(time for time, _ in times)


def cost(work: Callable[[bytes], object], data: bytes) -> int:
    start = time.thread_time_ns()
    work(data)
    return time.thread_time_ns() - start


def read(data: bytes) -> Header:
    return parse(data, max_header_size=65551)[0]


def feed_in_pieces(data: bytes) -> None:
    decoder = Decoder(max_header_size=65551)
    for start in range(0, len(data), 64):
        decoder.feed(data[start : start + 64])
    assert decoder.header is not None


def test_21000_empty_tlvs_are_read() -> None:
    assert read(header_of(MOST)).tlvs == ((0x04, b""),) * MOST


def test_reading_is_linear() -> None:
    assert growth(read) < LINEAR


def test_views_are_linear() -> None:
    assert growth(lambda data: read(data).tlvs) < LINEAR
    assert growth(lambda data: read(data).authority) < LINEAR


def test_pieces_are_linear() -> None:
    assert growth(feed_in_pieces) < LINEAR
