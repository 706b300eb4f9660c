"""For any bytes in any pieces, a Listener does what the codec says about them, and takes no byte more."""

from __future__ import annotations

import contextlib
import itertools
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.test_properties import DATA
from peers import SIGNATURE, Peer, until
from proxyproto_rs import Command, Header, IncompleteHeader, InvalidHeader, Listener, parse
from proxyproto_rs.exceptions import REASONS

# Longer than the first look reads, which is enough for usual headers.
LONG = st.integers(500, 3_900).map(
    lambda size: (
        SIGNATURE
        + b"\x20\0"
        + (size + 3).to_bytes(2, "big")
        + b"\x04"
        + size.to_bytes(2, "big")
        + bytes(size)
    )
)

LENIENT = {"allow_mixed_families": True, "ignore_malformed_tlvs": True, "reject_unspec": True}


@given(
    DATA, st.lists(st.integers(1, 300), max_size=4), st.binary(max_size=20), st.sampled_from([{}, LENIENT])
)
@pytest.mark.timeout(300)
def test_any_bytes_in_any_pieces(
    data: bytes, cuts: list[int], payload: bytes, options: dict[str, Any]
) -> None:
    data += payload
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], **options) as listener,
        Peer(listener.getsockname()) as peer,
    ):
        send(peer, data, cuts)
        try:
            header, consumed = parse(data, **options)
        except IncompleteHeader:
            assert peer.sees_the_end()
            assert outcomes(listener) == {"closed-early": 1}
        except InvalidHeader:
            assert peer.sees_the_end()
            ((outcome, count),) = outcomes(listener).items()
            assert (outcome in possible_refusals(data, options), count) == (True, 1)
        else:
            if not can_be_a_client(header):
                assert peer.sees_the_end()
                assert outcomes(listener) == {"malformed": 1}
                return
            if header.command is Command.LOCAL and consumed == len(data):
                # A health check that has ended is delivered only if the Listener has not seen its end in time.
                until(lambda: outcomes(listener) == {"local": 1})
                if (check := listener.try_accept()) is not None:
                    check.close()
                return
            sock, _ = listener.accept()
            with sock:
                assert sock.header == header
                assert b"".join(iter(lambda: sock.recv(100), b"")) == data[consumed:]


def send(peer: Peer, data: bytes, cuts: list[int]) -> None:
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # it may be refused before the last piece
        for start, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
            peer.send(data[start:end])
        peer.end()


def can_be_a_client(header: Header) -> bool:
    """Whether any client can have the address that the header names."""
    ip: Any = header.source_ip
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip is None or not (ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255")


def outcomes(listener: Listener) -> dict[str, int]:
    return {outcome: count for outcome, count in listener.stats().items() if count}


def possible_refusals(data: bytes, options: dict[str, Any]) -> set[str]:
    """The reasons to refuse the beginnings of the data. The kernel decides which beginning the Listener sees."""
    refusals = set()
    for end in range(1, len(data) + 1):
        try:
            parse(data[:end], **options)
        except IncompleteHeader:
            continue
        except InvalidHeader as error:
            refusals.add(REASONS[error.reason])
    return refusals
