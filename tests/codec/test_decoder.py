"""`Decoder`: what it keeps, over several calls and after an error."""

from __future__ import annotations

import threading

import pytest

from proxyproto_rs import Decoder, Header, InvalidHeader

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"


def test_fresh() -> None:
    decoder = Decoder()
    assert decoder.header is None
    assert decoder.leftover == b""
    assert decoder.needed == 15  # PROXY UNKNOWN and CRLF


def test_needed_of_the_only_allowed_version() -> None:
    assert Decoder(versions=[2]).needed == 16


def test_header_in_pieces() -> None:
    decoder = Decoder()
    assert decoder.feed(b"") is None
    assert decoder.feed(LINE[:20]) is None
    assert (decoder.header, decoder.leftover) == (None, b"")
    header = decoder.feed(LINE[20:] + b"pay")
    assert header is not None
    assert header.raw == LINE
    assert decoder.header is header
    assert decoder.leftover == b"pay"
    assert decoder.needed == 0


def test_what_comes_later_is_leftover() -> None:
    decoder = Decoder()
    header = decoder.feed(LINE + b"a")
    assert decoder.feed(b"b") is header
    assert decoder.feed(b"") is header
    assert decoder.feed(bytearray(LINE)) is header
    assert decoder.leftover == b"ab" + LINE


def test_a_second_header_is_payload() -> None:  # R8
    decoder = Decoder()
    decoder.feed(LINE + Header.local().raw)
    assert decoder.leftover == Header.local().raw


def test_an_error_is_raised_again() -> None:
    decoder = Decoder()
    assert decoder.feed(b"PROXY TC") is None
    with pytest.raises(InvalidHeader) as first:
        decoder.feed(b"P5 ...")
    with pytest.raises(InvalidHeader) as second:
        decoder.feed(LINE)
    assert first.value.args == second.value.args == ("unknown-protocol", 9, b"PROXY TCP5 ...")
    assert (decoder.header, decoder.leftover, decoder.needed) == (None, b"", 0)


def test_first_bytes_are_those_of_the_stream() -> None:
    decoder = Decoder()
    for byte in b"PROXY TCP4 x":
        assert decoder.feed(bytes([byte])) is None
    with pytest.raises(InvalidHeader) as caught:
        decoder.feed(b"y z 1 2 and more than sixteen bytes\r\n")
    assert caught.value.first_bytes == b"PROXY TCP4 xy z "


def test_a_wrong_type_changes_nothing() -> None:
    decoder = Decoder()
    decoder.feed(LINE[:20])
    with pytest.raises(TypeError):
        decoder.feed("PROXY")  # type: ignore[arg-type]
    assert decoder.feed(LINE[20:]) is not None


def test_cannot_be_changed_from_outside() -> None:
    decoder = Decoder()
    for name in ("header", "leftover", "needed", "anything"):
        with pytest.raises(AttributeError):
            setattr(decoder, name, None)


def test_threads_may_share_one() -> None:
    decoder = Decoder()
    decoder.feed(LINE)
    start = threading.Barrier(4)

    def feed() -> None:
        start.wait()
        for _ in range(500):
            assert decoder.feed(b"12345678") is decoder.header

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decoder.leftover == b"12345678" * 2000
