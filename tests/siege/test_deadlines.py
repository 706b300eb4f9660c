"""Thousands of peers send nothing, or one byte now and then.

The Listener closes them at the deadline, and serves good clients meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers import V1, V2, Peer, until
from proxyproto_rs import Listener
from siege.crowd import Crowd, drip

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT = 5_000
DRIPPING = 2_000

# A line that may have 106 more bytes, and a header that may have 4096.
LINE = b"PROXY UNKNOWN "
BLOCK = V2[:12] + b"\x21\x11\x0f\xf0"
DRIPS_LEFT = 107 - len(LINE) - 1


def greet(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2, b"hello") as peer:
        assert peer.receive() == b"hello"


def test_silent_and_dripping_are_gone_at_the_deadline(echoing: Callable[[Listener], None]) -> None:
    """The deadline is for the whole header. If it were for each read, the dripping peers would last for all their bytes."""
    timeout = 2.0
    with (
        Listener(
            "127.0.0.1", 0, trusted=["127.0.0.0/8"], header_timeout=timeout, max_pending=10_000
        ) as listener,
        Crowd() as crowd,
    ):
        echoing(listener)
        for _ in range(SILENT):
            crowd.connect(listener.getsockname())
        dripping = [
            crowd.connect(listener.getsockname(), beginning)
            for beginning in (LINE, BLOCK)
            for _ in range(DRIPPING // 2)
        ]

        rounds = greeted = greeted_under_siege = 0
        while crowd:
            greet(listener)
            greeted += 1
            greeted_under_siege += listener.stats().pending > 0
            # Ten drips within the time of one read's deadline: each drip would start that deadline again.
            crowd.watch(timeout / 10)
            dripping = [sock for sock in dripping if sock.fileno() >= 0 and drip(sock, b"x")]
            rounds += bool(dripping)

        stats = listener.stats()
        assert (stats["timeout"], stats["v2"]) == (SILENT + DRIPPING, greeted)
        assert stats.pending == 0
        assert greeted_under_siege >= 1
        assert rounds < DRIPS_LEFT


def test_when_too_many_wait_the_longest_goes_and_fresh_ones_get_in(
    echoing: Callable[[Listener], None],
) -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], header_timeout=60) as listener, Crowd() as crowd:
        most = listener.options["max_pending"]
        assert most == 4096
        echoing(listener)
        for _ in range(SILENT):
            # They send one byte, because the kernel would hold silent ones back for another second.
            crowd.connect(listener.getsockname(), b"P")
        until(lambda: listener.stats().pending == most)
        with Peer(listener.getsockname(), V1[:20]) as late:
            until(lambda: listener.stats()["pending-overflow"] == SILENT - most + 1)
            late.send(V1[20:], b"hello")
            assert late.receive() == b"hello"
        while len(crowd) > most - 1:
            crowd.watch()
        stats = listener.stats()
        assert (stats.pending, stats["timeout"], stats["v1"]) == (most - 1, 0, 1)
