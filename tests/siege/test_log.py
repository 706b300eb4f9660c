"""Ten thousand broken connections from ten thousand addresses do not fill the disk, and are all counted."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from peers import wait_readable
from proxyproto_rs import Listener, Refusal
from siege.crowd import Crowd, sources

if TYPE_CHECKING:
    import pytest

CONNECTIONS = 10_000
BATCH = 250

# The design allows this many lines in each ten seconds.
LINES = 100
WINDOW = 10.0


def test_the_log_of_10000_malformed_connections(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Refusal] = []
    start = time.monotonic()
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], on_refused=told.append) as listener,
        Crowd() as crowd,
    ):
        addresses = sources()
        for _ in range(CONNECTIONS // BATCH):
            for source in itertools.islice(addresses, BATCH):
                crowd.connect(listener.getsockname(), b"PROXY TCP4 1.2.3.4 5.6.7.8 080 1\r\n", source)
            crowd.watch_all()
        while sum(refusal.count for refusal in told) + listener.refusals_dropped < CONNECTIONS:
            assert wait_readable(listener.fileno())
            assert listener.try_accept() is None
        assert listener.stats()["malformed"] == CONNECTIONS
    # The bound depends on the time that this machine took, not on the number of connections.
    windows = 1 + (time.monotonic() - start) // WINDOW
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= LINES * windows
    assert "080" in lines[0] or "port" in lines[0]
    assert max(map(len, lines)) < 1000
    assert {refusal.reason for refusal in told} == {"malformed"}
