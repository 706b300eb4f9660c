"""Addresses, written as the socket module writes them."""

from __future__ import annotations

import ipaddress
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyproto_rs import Header, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# IPv6 addresses whose text is hard to write: they have runs of zeros, and groups of each length.
GROUPS = st.lists(
    st.sampled_from([0, 0, 0, 1, 0xA, 0x10, 0xFF, 0x100, 0xFFF, 0x1000, 0xFFFF]), min_size=8, max_size=8
)
PORTS = st.integers(0, 65535)


def read_inet(packed: bytes, port: int) -> Header:
    block = packed + packed + port.to_bytes(2, "big") * 2
    family = b"\x11" if len(packed) == 4 else b"\x21"
    return parse(SIGNATURE + b"\x21" + family + len(block).to_bytes(2, "big") + block)[0]


def read_unix(field: bytes) -> Header:
    return parse(SIGNATURE + b"\x21\x31\0\xd8" + field.ljust(108, b"\0") * 2)[0]


@given(st.binary(min_size=4, max_size=4), PORTS)
def test_inet(packed: bytes, port: int) -> None:
    header = read_inet(packed, port)
    assert header.source == header.destination == (socket.inet_ntoa(packed), port)
    assert header.source_ip == header.destination_ip == ipaddress.IPv4Address(packed)


@pytest.mark.parametrize("octet", range(256))
def test_each_octet(octet: int) -> None:
    assert read_inet(bytes([octet] * 4), octet).source == (f"{octet}.{octet}.{octet}.{octet}", octet)


@given(GROUPS, PORTS)
def test_inet6(groups: list[int], port: int) -> None:
    packed = b"".join(group.to_bytes(2, "big") for group in groups)
    header = read_inet(packed, port)
    address = ipaddress.IPv6Address(packed)
    # What str() makes of a mapped address depends on Python's version.
    host = f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)
    assert header.source == header.destination == (host, port, 0, 0)
    assert header.source_ip == header.destination_ip == address


@given(st.binary(min_size=4, max_size=4))
def test_ipv4_mapped(packed: bytes) -> None:
    header = read_inet(bytes(10) + b"\xff\xff" + packed, 1)
    assert header.source == (f"::ffff:{socket.inet_ntoa(packed)}", 1, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "::",
        "::1",
        "1::",
        "::ffff:192.0.2.1",
        "::fffe:c000:201",
        "::ffff:0:0",
        "::c000:201",
        "64:ff9b::c000:221",
        "2001:db8::1",
        "2001:db8:0:1:1:1:1:1",
        "2001:db8:0:0:1:0:0:1",
        "2001:0:0:1::1",
        "1:2:3:4:5:6:7:8",
        "0:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:0",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ],
)
def test_rfc_5952(text: str) -> None:
    packed = socket.inet_pton(socket.AF_INET6, text)
    written = {"2001:db8:0:0:1:0:0:1": "2001:db8::1:0:0:1"}.get(text, text)
    written = {"::ffff:0:0": "::ffff:0.0.0.0"}.get(written, written)
    assert read_inet(packed, 0).source == (written, 0, 0, 0)


@given(st.binary(max_size=108))
def test_unix(field: bytes) -> None:
    """R29, C14: a path ends at its first NUL, an abstract name loses its trailing ones."""
    header = read_unix(field)
    abstract = field.rstrip(b"\0")
    expected = abstract if abstract.startswith(b"\0") else os.fsdecode(field.split(b"\0")[0])
    assert header.source == header.destination == expected


def test_a_unix_socket_finds_its_path_again(tmp_path: os.PathLike[str]) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        assert sock.getsockname() == path
        header = Header.v2(sock.getsockname(), sock.getsockname())
    assert header.source == path
