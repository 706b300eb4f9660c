"""`Command`, `Family` and `Transport`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs import Command, Family, Transport, parse

if TYPE_CHECKING:
    from enum import Enum


@pytest.mark.parametrize(
    ("members", "numbers"),
    [
        (Command, {"LOCAL": 0, "PROXY": 1}),
        (Family, {"UNSPEC": 0, "INET": 1, "INET6": 2, "UNIX": 3}),
        (Transport, {"UNSPEC": 0, "STREAM": 1, "DGRAM": 2}),
    ],
)
def test_values_are_those_of_the_wire(members: type[Enum], numbers: dict[str, int]) -> None:
    assert {member.name: member.value for member in members} == numbers


@pytest.mark.parametrize("family", [0, 1, 2, 3])
@pytest.mark.parametrize("transport", [0, 1, 2])
def test_every_combination(family: int, transport: int) -> None:  # R25
    block = bytes(216)
    byte = bytes([family << 4 | transport])
    header, _ = parse(b"\r\n\r\n\0\r\nQUIT\n\x21" + byte + len(block).to_bytes(2, "big") + block)
    assert header.command is Command.PROXY
    assert header.family is Family(family)
    assert header.transport is Transport(transport)


def test_are_not_the_numbers_of_the_socket_module() -> None:
    """INET6 must not equal AF_INET (both are 2): a comparison of the two would silently be wrong."""
    member: object = Family.INET6
    assert Family.INET6.value == int(socket.AF_INET)
    assert member != socket.AF_INET
