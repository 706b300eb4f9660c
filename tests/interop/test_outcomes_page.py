"""Each line of docs/reference/outcomes.md is the line that the log has, when a peer does what the page says."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from interop.pages import read
from peers import SIGNATURE, Peer, until, wait_readable
from proxyproto_rs import Header, Listener, ListenerStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxyproto_rs import Refusal

PAGE = "reference/outcomes.md"

ROW = re.compile(r"^\| `(?P<outcome>[\w-]+)` \| (?P<provoked>.+?) \| (?:none|`(?P<line>.+)`) \|$", re.M)

CLIENT_OF_THE_PAGE = ("192.0.2.1", 51000)
V1 = Header.v1(CLIENT_OF_THE_PAGE, ("198.51.100.1", 443)).encode()
V2 = Header.v2(CLIENT_OF_THE_PAGE, ("198.51.100.1", 443)).encode()


@dataclass
class Provocation:
    """What one peer does, or what two peers do, on a listener with these options."""

    outcome: str
    described: str
    """How the page's description begins."""
    sends: bytes
    options: dict[str, Any] = field(default_factory=dict)
    then: Callable[[Peer], None] | None = None
    peers: int = 1


PROVOCATIONS = [
    Provocation("untrusted", "`trusted=", V2, {"trusted": ["10.0.0.0/8"]}),
    Provocation("missing-header", "an MQTT CONNECT", b"\x10\x0c\x00\x04MQTT"),
    Provocation("malformed", "a port", b"PROXY TCP4 192.0.2.1 198.51.100.1 051000 443\r\n"),
    Provocation("malformed", "a header", b"PROXY TCP4 0.0.0.0 198.51.100.1 51000 443\r\n"),
    Provocation("oversized", "a version 2 header", SIGNATURE + b"\x21\x11\xff\xff"),
    Provocation("bad-checksum", "a CRC32C", SIGNATURE + b"\x20\x00\x00\x07\x03\x00\x04\x00\x00\x00\x00"),
    Provocation("timeout", "a peer that says", b"", {"header_timeout": 0.05, "defer_accept": False}),
    Provocation("timeout", "a peer that stops", b"PROXY TCP4", {"header_timeout": 0.05}),
    Provocation("closed-early", "a peer that closes inside", b"PROXY TCP4", then=Peer.end),
    Provocation("closed-early", "a peer that closes without", b"", then=Peer.end),
    Provocation("unexpected-header", "`proxy_protocol=", V1, {"proxy_protocol": "off"}),
    Provocation("version-not-allowed", "`versions=", V1, {"versions": [2]}),
    Provocation("denied", "`deny=", V2, {"deny": ["192.0.2.0/24"]}),
    Provocation(
        "rate-limited", "`max_rate", V2, {"max_rate_per_client": 0.01, "burst_per_client": 1}, peers=2
    ),
    Provocation("too-many-from-client", "`max_conn", V2, {"max_connections_per_client": 1}, peers=2),
    Provocation("too-many", "`max_conn", V2, {"max_connections": 1}, peers=2),
    Provocation("tls-required", "`require_tls", V2, {"require_tls": True}),
    Provocation("cert-required", "`require_client_cert", V2, {"require_client_cert": True}),
    Provocation("pending-overflow", "`max_pending", b"P", {"max_pending": 1}, peers=2),
]


def rows() -> list[tuple[str, str, str | None]]:
    section = read(PAGE).split("\n## Lines in the log\n")[1].split("\n## ")[0]
    return [(match["outcome"], match["provoked"], match["line"]) for match in ROW.finditer(section)]


@pytest.mark.parametrize("case", PROVOCATIONS, ids=lambda case: f"{case.outcome}-{case.described[:24]}")
def test_the_log_says_what_the_page_shows(case: Provocation, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = [
        line
        for outcome, provoked, line in rows()
        if outcome == case.outcome and provoked.startswith(case.described)
    ]
    refusals: list[Refusal] = []
    options = {"trusted": ["127.0.0.0/8"], **case.options}
    with (
        Listener("127.0.0.1", 0, on_refused=refusals.append, **options) as listener,
        contextlib.ExitStack() as stack,
    ):
        names = []
        for _ in range(case.peers):
            peer = stack.enter_context(Peer(listener.getsockname(), case.sends))
            names.append(peer.name)
            if case.then is not None:
                case.then(peer)
        until(lambda: listener.stats()[case.outcome] == 1)
        # A refusal is counted first and logged later. Connections that came before it may be ready meanwhile.
        while line is not None and case.outcome not in {refusal.reason for refusal in refusals}:
            assert wait_readable(listener.fileno())
            if (conn := listener.try_accept()) is not None:
                stack.enter_context(conn)
        host, port = listener.getsockname()
    messages = [record.getMessage() for record in caplog.records]
    if line is None:
        assert messages == []
        return
    # There are two peers. Either the later one finds no place, or the earlier one loses its place.
    refused = names[0 if case.outcome == "pending-overflow" else -1]
    ours = {"0.0.0.0:1883": f"{host}:{port}", "10.0.0.5:51724": refused, "203.0.113.9:51724": refused}
    ours |= {"10.0.0.5": "127.0.0.1", "203.0.113.9": "127.0.0.1"}
    for theirs, own in ours.items():
        line = line.replace(theirs, own)
    assert line in messages


def test_the_page_shows_every_outcome_that_is_refused() -> None:
    with Listener("127.0.0.1", 0, trusted=[]) as listener:
        stats: ListenerStats = listener.stats()
    assert list(dict.fromkeys(outcome for outcome, _, _ in rows())) == list(stats)[5:]


def test_every_line_of_the_page_is_provoked() -> None:
    lines = [row for row in rows() if row[2] is not None or row[0] == "closed-early"]
    assert len(lines) == len(PROVOCATIONS)
