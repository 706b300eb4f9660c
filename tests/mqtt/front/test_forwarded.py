"""X-Forwarded-For: believed only from trusted peers, and read from its end."""

from __future__ import annotations

import pytest

from proxyproto_rs.mqtt.config import ForwardedConfig
from proxyproto_rs.mqtt.front.forwarded import forwarded_client

OPTIONS = ForwardedConfig(trusted=["10.0.0.0/8", "fd00::/8"])  # type: ignore[arg-type]
PEER = "10.0.0.9"

FOUND = [
    ("one", "203.0.113.7", "203.0.113.7"),
    ("rightmost-stranger", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
    ("past-our-proxies", "6.6.6.6, 203.0.113.7, 10.1.2.3, fd00::1", "203.0.113.7"),
    ("all-ours", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
    ("v6", "2001:db8::7", "2001:db8::7"),
    ("v6-brackets", "[2001:db8::7]", "2001:db8::7"),
    ("v6-brackets-port", "[2001:db8::7]:4711", "2001:db8::7"),
    ("v4-port", "203.0.113.7:4711", "203.0.113.7"),
    ("mapped", "::ffff:203.0.113.7", "203.0.113.7"),
]


@pytest.mark.parametrize(("value", "client"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_the_client_is_the_first_untrusted_address_from_the_right(value: str, client: str) -> None:
    assert forwarded_client(PEER, [("x-forwarded-for", value)], OPTIONS) == client


def test_a_stranger_is_not_believed() -> None:
    assert forwarded_client("203.0.113.9", [("x-forwarded-for", "1.2.3.4")], OPTIONS) is None


def test_without_the_header_there_is_no_client() -> None:
    assert forwarded_client(PEER, [("host", "broker")], OPTIONS) is None


def test_the_first_configured_header_counts_and_its_lines_are_one_list() -> None:
    headers = [("x-real-ip", "192.0.2.1"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7")]
    assert forwarded_client(PEER, headers, OPTIONS) == "203.0.113.7"
    assert forwarded_client(PEER, headers[:1], OPTIONS) == "192.0.2.1"


GARBAGE = [
    "",
    "unknown",
    "203.0.113.7,",
    "1.2.3",
    "fe80::1%eth0",
    "_hidden",
    "1.2.3.4:x",
    ", ".join(["10.0.0.1"] * 65),
]


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match="x-forwarded-for"):
        forwarded_client(PEER, [("x-forwarded-for", value)], OPTIONS)
