"""Connections in which the proxy itself speaks: LOCAL and UNKNOWN, and the checks that are a bare connection."""

from __future__ import annotations

import logging

import pytest

from peers import CLIENT, LOCAL, SIGNATURE, UNKNOWN, UNSPEC, V2, Peer, until
from proxyproto_rs import Command, Listener

# R23: a receiver skips whatever follows the fixed part of a LOCAL header. An AWS NLB sends this.
LOCAL_WITH_TLVS = SIGNATURE + b"\x20\x11\x00\x07" + b"\x04\x00\x04\x00\x00\x00\x00"

CHECKS = [
    ("local", LOCAL),
    ("local", LOCAL_WITH_TLVS),
    ("unknown", UNKNOWN),
    ("unknown", b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"),
    ("unknown", UNSPEC),
]
IDS = ["R23 LOCAL", "R23 LOCAL with TLVs", "R10 UNKNOWN", "R10 UNKNOWN with a tail", "R26 UNSPEC"]


@pytest.mark.parametrize(("outcome", "data"), CHECKS, ids=IDS)
def test_a_check_is_delivered_with_the_real_ends(listener: Listener, outcome: str, data: bytes) -> None:
    with Peer(listener.getsockname(), data, b"PING") as peer:
        sock, address = listener.accept()
        with sock:
            assert address == peer.sock.getsockname()
            assert sock.getsockname() == listener.getsockname()
            assert sock.header is not None
            assert (sock.header.command is Command.LOCAL) is (outcome == "local")
            assert sock.recv(100) == b"PING"
    assert listener.stats()[outcome] == 1


@pytest.mark.parametrize(("outcome", "data"), CHECKS, ids=IDS)
def test_a_check_is_closed_when_told(outcome: str, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted as accepted, and gets no line in the log."""
    caplog.set_level(logging.INFO)
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], health_checks="close") as listener:
        caplog.clear()
        with Peer(listener.getsockname(), data) as check:
            # It must not be reset, as an unread header would cause: HAProxy counts a reset as a failed check.
            assert check.sock.recv(1) == b""
        stats = listener.stats()
        assert (stats[outcome], stats.accepted, stats.ready, stats.open) == (1, 1, 0, 0)
        assert listener.try_accept() is None
        with Peer(listener.getsockname(), V2):
            sock, address = listener.accept()
            sock.close()
            assert address == CLIENT
    assert not caplog.records


@pytest.mark.parametrize(("outcome", "data"), CHECKS, ids=IDS)
def test_a_check_is_exempt_from_the_clients_rules(outcome: str, data: bytes) -> None:
    """It comes from the proxy itself, and these rules are about clients."""
    with Listener(
        "127.0.0.1",
        0,
        trusted=["127.0.0.1"],
        allow=["192.0.2.0/24"],
        max_connections=1,
        max_connections_per_client=1,
        max_rate_per_client=0.001,
        require_tls=True,
    ) as listener:
        for _ in range(3):
            with Peer(listener.getsockname(), data):
                listener.accept()[0].close()
        assert listener.stats()[outcome] == 3


def test_a_bare_connection_is_a_probe(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    listener.update(defer_accept=False)
    with Peer(listener.getsockname()) as peer:
        peer.reset()
    until(lambda: listener.stats()["closed-early"] == 1)
    assert listener.try_accept() is None
    assert not caplog.records


@pytest.mark.parametrize("ending", ["end", "reset"])
def test_a_local_check_that_is_over_is_not_delivered(ending: str) -> None:
    """HAProxy's check closes behind its header: a handler would only fail on it, every two seconds."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], ahead=0, defer_accept=False) as listener:
        check = Peer(listener.getsockname(), LOCAL)
        getattr(check, ending)()
        until(lambda: listener.try_accept() is not None or sum(listener.stats().values()) == 1)
        # After a reset the header may be gone with the rest.
        stats = listener.stats()
        assert stats["local"] + stats["closed-early"] == 1
        assert (stats.open, stats.ready) == (0, 0)
        check.sock.close()


def test_a_local_connection_that_says_something_is_delivered_though_it_has_ended(listener: Listener) -> None:
    with Peer(listener.getsockname(), LOCAL + b"PING") as check:
        check.end()
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100) == b"PING"
