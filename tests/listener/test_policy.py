"""Whom to serve: allow, deny, TLS and certificates, on the client that the header names."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from peers import CLIENT, LOCAL, SIGNATURE, UNKNOWN, UNSPEC, V1, V2, Peer, next_refusal, until
from proxyproto_rs import AddressSet, Header, Listener, Refusal

TRUSTED: dict[str, Any] = {"trusted": ["127.0.0.0/8"]}


def outcome_of(header: bytes, **options: Any) -> str:
    """Return the one outcome of a connection with this header."""
    with Listener("127.0.0.1", 0, **{**TRUSTED, **options}) as listener, Peer(listener.getsockname(), header):
        until(lambda: sum(listener.stats().values()) == 1)
        return next(outcome for outcome, count in listener.stats().items() if count)


def v2_with_ssl(client: int, verify: int) -> bytes:
    ssl = struct.pack("!BHBI", 0x20, 5, client, verify)
    return SIGNATURE + b"\x21\x11" + struct.pack("!H", 12 + len(ssl)) + V2[16:] + ssl


@pytest.mark.parametrize(
    ("options", "header", "outcome"),
    [
        pytest.param({"deny": ["192.0.2.0/24"]}, V1, "denied", id="deny-network"),
        pytest.param({"deny": ["192.0.2.2"]}, V1, "v1", id="deny-another"),
        pytest.param({"deny": ["127.0.0.0/8"]}, V2, "v2", id="deny-is-not-about-the-proxy"),
        pytest.param({"allow": ["192.0.2.1"]}, V2, "v2", id="allow-address"),
        pytest.param({"allow": ["198.51.100.0/24"]}, V2, "denied", id="allow-another"),
        pytest.param({"allow": []}, V2, "denied", id="allow-nobody"),
        pytest.param({"allow": ["192.0.2.0/24"], "deny": ["192.0.2.1"]}, V2, "denied", id="deny-wins"),
        pytest.param({"allow": []}, LOCAL, "local", id="LOCAL-is-exempt"),
        pytest.param({"allow": []}, UNKNOWN, "unknown", id="UNKNOWN-is-exempt"),
        pytest.param({"allow": []}, UNSPEC, "unknown", id="UNSPEC-is-exempt"),
        pytest.param({"deny": ["::ffff:192.0.2.0/120"]}, V1, "denied", id="mapped-entry"),
        pytest.param(
            {"deny": ["192.0.2.0/24"]},
            b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n",
            "denied",
            id="mapped-client",
        ),
        pytest.param(
            {"trusted": [], "untrusted": "direct", "deny": ["127.0.0.1"]}, b"x", "denied", id="direct-is-held"
        ),
        pytest.param({"require_tls": True}, V1, "tls-required", id="tls-v1"),
        pytest.param({"require_tls": True}, V2, "tls-required", id="tls-no-tlv"),
        pytest.param({"require_tls": True}, v2_with_ssl(0, 0), "tls-required", id="tls-bit-not-set"),
        pytest.param({"require_tls": True}, v2_with_ssl(1, 0), "v2", id="tls"),
        pytest.param({"require_client_cert": True}, v2_with_ssl(1, 0), "cert-required", id="cert-none"),
        pytest.param({"require_client_cert": True}, v2_with_ssl(3, 1), "cert-required", id="cert-bad"),
        pytest.param({"require_client_cert": True}, v2_with_ssl(3, 0), "v2", id="cert-conn"),
        pytest.param({"require_client_cert": True}, v2_with_ssl(5, 0), "v2", id="cert-sess"),
        pytest.param({"require_tls": True, "require_client_cert": True}, V2, "tls-required", id="tls-first"),
        pytest.param({"require_tls": True}, LOCAL, "local", id="tls-LOCAL-is-exempt"),
        pytest.param(
            {"trusted": [], "untrusted": "direct", "require_tls": True}, b"x", "tls-required", id="tls-direct"
        ),
    ],
)
def test_rules(options: dict[str, Any], header: bytes, outcome: str) -> None:
    assert outcome_of(header, **options) == outcome


@pytest.mark.parametrize("host", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.250"])
def test_an_ipv4_address_that_no_client_has_is_malformed(host: str) -> None:
    assert outcome_of(f"PROXY TCP4 {host} 198.51.100.2 1 2\r\n".encode()) == "malformed"


@pytest.mark.parametrize("host", ["::", "ff02::1", "::ffff:0.0.0.0"])
def test_an_ipv6_address_that_no_client_has_is_malformed(host: str) -> None:
    assert outcome_of(Header.v2((host, 1), ("2001:db8::1", 2)).encode()) == "malformed"


def test_what_LOCAL_names_is_nobodys_address() -> None:
    header = SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12)
    assert outcome_of(header) == "local"


def test_a_client_with_a_path_is_on_no_list() -> None:
    header = Header.v2("/run/client", "/run/server").encode()
    assert outcome_of(header, deny=["0.0.0.0/0", "::/0"]) == "v2"
    assert outcome_of(header, allow=["0.0.0.0/0", "::/0"]) == "denied"


def test_a_denied_client_is_answered_with_nothing() -> None:
    refusals: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, **TRUSTED, deny=["192.0.2.0/24"], on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), V2 + b"\x16\x03\x01 a ClientHello") as peer,
    ):
        assert peer.receive() == b""
        refusal = next_refusal(listener, refusals)
    assert (refusal.reason, refusal.client, refusal.peer[0]) == ("denied", CLIENT, "127.0.0.1")


def test_an_entry_that_expires_is_not_there_any_more() -> None:
    deny = AddressSet()
    deny.add("192.0.2.1", expires=0.02)
    with Listener("127.0.0.1", 0, **TRUSTED, deny=deny) as listener:
        until(lambda: "192.0.2.1" not in deny)
        with Peer(listener.getsockname(), V2):
            until(lambda: listener.stats()["v2"] == 1)


def test_a_hundred_thousand_entries_are_looked_up_like_ten() -> None:
    networks = [f"10.{a}.{b}.0/24" for a in range(256) for b in range(256)]
    networks += [f"2001:db8:{a:x}::/48" for a in range(40_000)]
    with Listener("127.0.0.1", 0, **TRUSTED, deny=networks) as listener:
        assert len(listener.options["deny"]) == len(networks)
        for header, outcome in [
            (b"PROXY TCP4 10.255.7.1 198.51.100.2 1 2\r\n", "denied"),
            (b"PROXY TCP6 2001:db8:99::1 ::1 1 2\r\n", "denied"),
            (V1, "v1"),
        ]:
            before = listener.stats()[outcome]
            with Peer(listener.getsockname(), header):
                until(lambda outcome=outcome, before=before: listener.stats()[outcome] == before + 1)  # type: ignore[misc]
