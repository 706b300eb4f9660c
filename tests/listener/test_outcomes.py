"""Every way in which a connection can be refused where a header is required: counter, record, log line.

The reader of the line must learn: who, on which listener, what was wrong and at which byte, what came, what to change.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from peers import (
    CLIENT,
    LOCAL,
    SIGNATURE,
    UNKNOWN,
    UNSPEC,
    V1,
    V2,
    Peer,
    next_refusal,
    until,
)
from proxyproto_rs import ClientLimits, Listener, ListenerStats, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPTED = ("v1", "v2", "local", "unknown", "direct")
REFUSED = (
    "untrusted",
    "missing-header",
    "malformed",
    "oversized",
    "bad-checksum",
    "timeout",
    "closed-early",
    "unexpected-header",
    "version-not-allowed",
    "denied",
    "rate-limited",
    "too-many-from-client",
    "too-many",
    "tls-required",
    "cert-required",
    "pending-overflow",
)

SSL_WITHOUT_CERTIFICATE = b"\x20\x00\x05" + b"\x01" + struct.pack("!I", 1)


def v2_with(tlvs: bytes) -> bytes:
    return V2[:14] + struct.pack("!H", 12 + len(tlvs)) + V2[16:] + tlvs


@dataclass
class Case:
    """What a peer sends on a listener with these options, and what the Listener must report."""

    outcome: str
    sends: bytes
    options: dict[str, Any] = field(default_factory=dict)
    earlier: bytes = b""
    """What another peer sends first; it stays connected."""
    then: Callable[[Peer], None] | None = None
    says: tuple[str, ...] = ()
    first_bytes: bytes | None = None
    """Given if they are not the first 24 bytes that were sent."""
    names_client: bool = False
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.outcome


CASES = [
    Case(
        "untrusted",
        V2,
        {"trusted": ["192.0.2.0/24"]},
        says=("127.0.0.1 is not in trusted= (1 network)", 'untrusted="direct"'),
        first_bytes=b"",
    ),
    Case(
        "missing-header",
        b"\x10\x1e\x00\x04MQTT",
        says=("MQTT CONNECT", "10 1e 00 04 4d 51 54 54", "send-proxy-v2"),
        name="missing-header-mqtt",
    ),
    Case(
        "missing-header",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        says=("TLS ClientHello", "16 03 01", "send-proxy-v2"),
        name="missing-header-tls",
    ),
    Case("missing-header", b"GET / HTTP/1.1\r\n", says=("HTTP", "send-proxy-v2"), name="missing-header-http"),
    Case("missing-header", b"SSH-2.0-OpenSSH_9.6\r\n", says=("SSH",), name="missing-header-ssh"),
    Case(
        "malformed",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 080 443\r\n",
        says=("byte 34", "leading zero", "50 52 4f 58 59"),
        name="malformed-v1 R14",
    ),
    Case("malformed", b"PROXY TCP5 ", says=("byte 9",), name="malformed-v1 R9"),
    Case("malformed", SIGNATURE + b"\x31\x11\x00\x0c", says=("byte 12",), name="malformed-v2 R21"),
    Case("malformed", SIGNATURE + b"\x22\x11\x00\x0c", says=("byte 12",), name="malformed-v2 R22"),
    Case("malformed", SIGNATURE + b"\x21\x11\x00\x0b", says=("byte 14",), name="malformed-v2 R29"),
    Case("malformed", UNSPEC, {"reject_unspec": True}, says=("byte 13",), name="malformed-unspec R26"),
    Case("oversized", SIGNATURE + b"\x21\x11\xff\xff", says=("byte 14", "max_header_size=")),
    Case("bad-checksum", v2_with(b"\x03\x00\x04\x00\x00\x00\x00"), says=("byte 31", "CRC32C")),
    Case(
        "timeout",
        V2[:20],
        {"header_timeout": 0.05},
        says=("20 bytes of the header came in 0.05 s, 8 or more are missing", "0d 0a 0d 0a 00"),
        name="timeout-partial",
    ),
    Case(
        "timeout",
        b"",
        {"header_timeout": 0.05, "defer_accept": False},
        says=("nothing came in 0.05 s", "header_timeout="),
        name="timeout-silent",
    ),
    Case(
        "closed-early",
        V2[:20],
        then=Peer.end,
        says=("closed after 20 bytes of the header, 8 or more are missing", "0d 0a 0d 0a 00"),
        name="closed-early R30",
    ),
    Case(
        "version-not-allowed",
        V1,
        {"versions": (2,)},
        says=("is a PROXY header of version 1", "versions=", '"send-proxy-v2"'),
    ),
    Case(
        "denied",
        V2,
        {"deny": ["10.0.0.0/8", "192.0.2.0/24"]},
        says=("deny 192.0.2.0/24 covers it",),
        names_client=True,
        name="denied-by-deny",
    ),
    Case(
        "denied",
        V2,
        {"allow": ["10.0.0.0/8", "::/0"]},
        says=("192.0.2.1 is not in allow= (2 networks)",),
        names_client=True,
        name="denied-by-allow",
    ),
    Case(
        "rate-limited",
        V2,
        {"max_rate_per_client": 0.001, "burst_per_client": 1},
        earlier=V2,
        says=("192.0.2.1 has used up max_rate_per_client= (0.001 in a second, 1 at once)",),
        names_client=True,
    ),
    Case(
        "rate-limited",
        V2,
        {"client_limits": ClientLimits(max_rate=0.001, burst=1)},
        earlier=V2,
        says=("192.0.2.1 has used up max_rate= of client_limits= (0.001 in a second, 1 at once)",),
        names_client=True,
        name="rate-limited by shared limits",
    ),
    Case(
        "too-many-from-client",
        V2,
        {"max_connections_per_client": 1},
        earlier=V2,
        says=("192.0.2.1 has 1 open connection, and max_connections_per_client= allows 1",),
        names_client=True,
    ),
    Case(
        "too-many-from-client",
        V2,
        {"client_limits": ClientLimits(max_connections=1)},
        earlier=V2,
        says=("192.0.2.1 has 1 open connection, and max_connections= of client_limits= allows 1",),
        names_client=True,
        name="too-many-from-client by shared limits",
    ),
    Case(
        "too-many",
        V2,
        {"max_connections": 1},
        earlier=V2,
        says=("clients have 1 open connection, and max_connections= allows 1",),
        names_client=True,
    ),
    Case(
        "tls-required",
        V2,
        {"require_tls": True},
        says=("no SSL TLV", "require_tls= is set", "send-proxy-v2-ssl"),
        names_client=True,
    ),
    Case(
        "tls-required",
        V2,
        {"require_tls": True, "require_client_cert": True},
        says=("require_tls= is set",),
        names_client=True,
        name="tls-required-before-cert",
    ),
    Case(
        "cert-required",
        v2_with(SSL_WITHOUT_CERTIFICATE),
        {"require_client_cert": True},
        says=("gave no certificate", "require_client_cert= is set", "send-proxy-v2-ssl-cn"),
        names_client=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_refusal_is_counted_recorded_and_logged(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    refusals: list[Refusal] = []
    options = {"trusted": ["127.0.0.0/8"], **case.options}
    before = time.time()
    with (
        Listener("127.0.0.1", 0, on_refused=refusals.append, **options) as listener,
        contextlib.ExitStack() as stack,
    ):
        address = listener.getsockname()
        if case.earlier:
            stack.enter_context(Peer(address, case.earlier))
            stack.enter_context(listener.accept()[0])
        with Peer(address, case.sends) as peer:
            if case.then is not None:
                case.then(peer)
            assert peer.sees_the_end()
            name, peername = peer.name, peer.sock.getsockname()
        refusal = next_refusal(listener, refusals)
        stats = listener.stats()
        name_of_listener = f"127.0.0.1:{address[1]}"

    assert stats[case.outcome] == 1
    assert (stats.accepted, stats.refused) == (1 if case.earlier else 0, 1)

    assert refusals == [refusal]
    assert (refusal.reason, refusal.count, refusal.listener) == (case.outcome, 1, name_of_listener)
    assert refusal.peer == peername
    assert refusal.client == (CLIENT if case.names_client else None)
    expected = case.sends[:24] if case.first_bytes is None else case.first_bytes
    if not case.names_client:
        assert refusal.first_bytes == expected
    assert before <= refusal.time <= time.time()

    (record,) = [record for record in caplog.records if record.name == "proxyproto_rs.listener"]
    line = record.getMessage()
    assert record.levelno == logging.WARNING
    whose = f"{CLIENT[0]}:{CLIENT[1]} (by {name})" if case.names_client else name
    assert line.startswith(f"{name_of_listener} refused {whose}: {case.outcome}")
    assert refusal.detail
    assert refusal.detail in line
    for text in case.says:
        assert text in refusal.detail
    assert "\n" not in line


def test_an_unexpected_header_is_told_what_to_change(caplog: pytest.LogCaptureFixture) -> None:
    """The Listener looks only at bytes that are there already. So they must be there before the Listener is."""
    refusals: list[Refusal] = []
    sock = socket.create_server(("127.0.0.1", 0))
    with Peer(sock.getsockname(), V1) as peer:
        with Listener.adopt(sock, proxy_protocol="off", on_refused=refusals.append) as listener:
            refusal = next_refusal(listener, refusals)
            assert listener.stats()["unexpected-header"] == 1
        assert peer.sees_the_end()
    assert refusal.reason == "unexpected-header"
    assert 'proxy_protocol="off"' in caplog.text
    assert "send-proxy" in caplog.text


def test_the_longest_waiting_goes_when_too_many_wait() -> None:
    """A newcomer may be honest. The connection that has waited longest is the least likely to be."""
    refusals: list[Refusal] = []
    with (
        Listener(
            "127.0.0.1", 0, trusted=["127.0.0.1"], max_pending=1, on_refused=refusals.append
        ) as listener,
        Peer(listener.getsockname(), V2[:20]) as first,
    ):
        until(lambda: listener.stats().pending == 1)
        with Peer(listener.getsockname(), V2[:20]) as second:
            assert first.sees_the_end()
            assert next_refusal(listener, refusals).reason == "pending-overflow"
            assert "waited longest for its header when more than 1 waited" in refusals[0].detail
            assert "max_pending=" in refusals[0].detail
            assert listener.stats()["pending-overflow"] == 1
            second.send(V2[20:])
            listener.accept()[0].close()


def test_a_probe_is_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A port scan or a balancer's TCP check ends without a byte. That deserves no line."""
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], defer_accept=False) as listener:
        with Peer(listener.getsockname()) as peer:
            peer.end()
            assert peer.sees_the_end()
        until(lambda: listener.stats()["closed-early"] == 1)
    assert not caplog.records


ACCEPTANCES: list[tuple[str, bytes, dict[str, Any]]] = [
    ("v1", V1, {}),
    ("v2", V2, {}),
    ("local", LOCAL, {}),
    ("unknown", UNKNOWN, {}),
    ("unknown", UNSPEC, {}),
    ("direct", b"hello", {"trusted": ["192.0.2.1"], "untrusted": "direct"}),
    ("direct", b"hello", {"proxy_protocol": "optional"}),
    ("direct", b"hello", {"proxy_protocol": "off"}),
    ("v2", V2, {"proxy_protocol": "optional"}),
]


@pytest.mark.parametrize(("outcome", "sends", "options"), ACCEPTANCES, ids=str)
def test_what_is_accepted_is_counted(
    outcome: str, sends: bytes, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Listener("127.0.0.1", 0, **{"trusted": ["127.0.0.1"], **options}) as listener,
        Peer(listener.getsockname(), sends),
    ):
        listener.accept()[0].close()
        stats = listener.stats()
    assert stats[outcome] == 1
    assert (stats.accepted, stats.refused) == (1, 0)
    assert not caplog.records


def test_all_outcomes_are_always_there(listener: Listener) -> None:
    stats = listener.stats()
    assert isinstance(stats, ListenerStats)
    assert set(stats) == {*ACCEPTED, *REFUSED}
    assert set(stats.values()) == {0}
    assert (stats.accepted, stats.refused, stats.pending, stats.ready, stats.open) == (0, 0, 0, 0, 0)


def test_believing_everybody_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with Listener("127.0.0.1", 0) as listener:
        assert len(caplog.records) == 1
        for _ in range(2):
            with Peer(listener.getsockname(), V2):
                listener.accept()[0].close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(r"127\.0\.0\.1:\d+ .*trusted=", record.getMessage())


def test_repeats_are_one_line_and_one_record(caplog: pytest.LogCaptureFixture) -> None:
    refusals: list[Refusal] = []
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=refusals.append) as listener:
        for _ in range(20):
            with Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n") as peer:
                assert peer.sees_the_end()
        assert listener.stats()["missing-header"] == 20
    assert len(caplog.records) == 1
    assert sum(refusal.count for refusal in refusals) == 20
    assert len(refusals) <= 2
