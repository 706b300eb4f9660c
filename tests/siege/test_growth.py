"""Fifty thousand connections of every outcome leave no file descriptor behind, and no memory that grows with them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import resource
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peers import LOCAL, SIGNATURE, UNKNOWN, V1, V2, until
from proxyproto_rs import Listener
from siege.crowd import Crowd, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxyproto_rs import ProxiedSocket

WARM_UP = 10_000
CONNECTIONS = 50_000
BATCH = 60

# A connection that is kept by mistake costs more: its header alone takes about 100 bytes on the heap.
BYTES_PER_CONNECTION = 40

PROXIES = {"trusted": ["127.0.0.0/8"]}
NOBODY = {"trusted": ["192.0.2.99"]}
HALF = V1[:20]
WITHOUT_A_CERTIFICATE = b"\x20\x00\x08\x01\x00\x00\x00\x00\x21\x00\x00"
TLS = SIGNATURE + b"\x21\x11\x00\x17" + V2[16:] + WITHOUT_A_CERTIFICATE


@dataclass(frozen=True)
class Case:
    """The connections that lead to one outcome."""

    outcome: str
    first_bytes: bytes
    options: dict[str, Any] = field(default_factory=lambda: PROXIES)
    ends: bool = False
    """The peer closes its sending side."""
    served_first: int = 0
    """How many connections are served first and stay, so that the others have this outcome."""
    served_once: int = 0
    """How many are served before all others have this outcome."""
    waits: int = 0
    """How many have no outcome until they leave."""


CASES = [
    Case("v1", V1),
    Case("v2", V2),
    Case("local", LOCAL),
    Case("unknown", UNKNOWN),
    Case("direct", b"hello", NOBODY | {"untrusted": "direct"}),
    Case("untrusted", V2, NOBODY),
    Case("missing-header", b"GET / HTTP/1.1\r\n\r\n"),
    Case("malformed", V1.replace(b" 443", b" 0443")),
    Case("oversized", SIGNATURE + b"\x21\x11\xff\xff"),
    Case("bad-checksum", SIGNATURE + b"\x20\x00\x00\x07\x03\x00\x04nono"),
    Case("timeout", HALF, PROXIES | {"header_timeout": 0.01}),
    Case("closed-early", HALF, ends=True),
    Case("unexpected-header", V2, PROXIES | {"proxy_protocol": "off"}),
    Case("version-not-allowed", V1, PROXIES | {"versions": [2]}),
    Case("denied", V2, PROXIES | {"deny": ["192.0.2.0/24"]}),
    Case("rate-limited", V2, PROXIES | {"max_rate_per_client": 1e-6, "burst_per_client": 1}, served_once=1),
    Case("too-many-from-client", V2, PROXIES | {"max_connections_per_client": 3}, served_first=3),
    Case("too-many", V2, PROXIES | {"max_connections": 3}, served_first=3),
    Case("tls-required", V2, PROXIES | {"require_tls": True}),
    Case("cert-required", TLS, PROXIES | {"require_client_cert": True}),
    Case("pending-overflow", HALF, PROXIES | {"max_pending": 2}, waits=2),
]
"""A case for each outcome."""

ACCEPTED = {"v1", "v2", "local", "unknown", "direct"}


@pytest.mark.timeout(300)  # it takes nine seconds on two idle cores
def test_50000_connections_of_every_outcome_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # pytest keeps log records, which would count as growth
    with contextlib.ExitStack() as stack, Crowd() as crowd:
        listeners = [stack.enter_context(Listener("127.0.0.1", 0, **case.options)) for case in CASES]
        assert {case.outcome for case in CASES} == set(listeners[0].stats())
        addresses = itertools.cycle(itertools.islice(sources(), 300))
        for case, listener in zip(CASES, listeners, strict=True):
            # With "off" the Listener does not wait for bytes, so the kernel must wait.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            for _ in range(case.served_once):
                serve(case, listener, crowd, next(addresses)).close()
        connections = sum(case.served_once for case in CASES)

        while connections < WARM_UP:
            connections += all_outcomes(listeners, crowd, addresses)
        files, memory = os.listdir("/proc/self/fd"), resident()
        after_warm_up = connections
        while connections < CONNECTIONS:
            connections += all_outcomes(listeners, crowd, addresses)

        assert os.listdir("/proc/self/fd") == files
        assert resident() - memory < BYTES_PER_CONNECTION * (connections - after_warm_up)
        for case, listener in zip(CASES, listeners, strict=True):
            stats = listener.stats()
            assert (stats.pending, stats.ready, stats.open) == (0, 0, 0), case.outcome
            assert stats[case.outcome] > 1_500
        counted = sum((Counter(listener.stats()) for listener in listeners), Counter())
        assert counted.total() == connections


def all_outcomes(listeners: list[Listener], crowd: Crowd, addresses: Iterator[str]) -> int:
    """Connect a batch to each listener, and wait until all have gone. Return the number of connections."""
    for case, listener in zip(CASES, listeners, strict=True):
        held = [serve(case, listener, crowd, next(addresses)) for _ in range(case.served_first)]
        for _ in range(BATCH - case.served_first):
            sock = crowd.connect(listener.getsockname(), case.first_bytes, next(addresses))
            if case.ends:
                sock.shutdown(socket.SHUT_WR)
        if case.outcome in ACCEPTED:
            for _ in range(BATCH):
                listener.accept()[0].close()
        while len(crowd) > len(held) + case.waits:
            crowd.watch()
        for sock in held:
            sock.close()
        crowd.leave()
        until(lambda listener=listener: listener.stats().pending == 0)  # type: ignore[misc]
    return BATCH * len(CASES)


def serve(case: Case, listener: Listener, crowd: Crowd, source: str) -> ProxiedSocket:
    crowd.connect(listener.getsockname(), case.first_bytes, source)
    return listener.accept()[0]


def resident() -> int:
    """Return the physical memory of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
