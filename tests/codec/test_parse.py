"""`parse` and `parse_datagram`: how they are called and what they return."""

from __future__ import annotations

import inspect

import pytest

import proxyproto_rs
from proxyproto_rs import Decoder, Header, IncompleteHeader, InvalidHeader, parse, parse_datagram

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"


def test_header_and_length() -> None:
    result = parse(LINE + b"GET / HTTP/1.1\r\n")
    assert type(result) is tuple
    header, consumed = result
    assert type(header) is Header
    assert type(consumed) is int
    assert consumed == len(LINE)
    assert header.source == ("192.0.2.1", 56324)
    assert header.destination == ("198.51.100.2", 443)


def test_datagram_is_whole_or_invalid() -> None:  # R6
    assert parse_datagram(LINE + b"payload") == parse(LINE)
    with pytest.raises(IncompleteHeader):
        parse(LINE[:-1])
    with pytest.raises(InvalidHeader) as caught:
        parse_datagram(LINE[:-1])
    assert (caught.value.reason, caught.value.offset) == ("truncated", len(LINE) - 1)


def test_nothing_is_incomplete() -> None:
    with pytest.raises(IncompleteHeader) as caught:
        parse(b"")
    assert caught.value.needed == 15
    with pytest.raises(InvalidHeader):
        parse_datagram(b"")


@pytest.mark.parametrize("function", [parse, parse_datagram, Decoder])
def test_signature(function: object) -> None:
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    assert [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY] == (
        [] if function is Decoder else ["data"]
    )
    assert {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    } == {
        "versions": (1, 2),
        "max_header_size": 4096,
        "allow_mixed_families": False,
        "reject_unspec": False,
        "ignore_malformed_tlvs": False,
    }


@pytest.mark.parametrize("name", ["parse", "parse_datagram", "Decoder", "Header", "SslInfo"])
def test_is_documented_under_its_public_name(name: str) -> None:
    public = getattr(proxyproto_rs, name)
    assert public.__doc__
    assert public.__name__ == name
    assert public.__module__ in {"proxyproto_rs", "proxyproto_rs._core"}
