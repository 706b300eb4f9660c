"""Whom to believe: required, optional and off; trusted peers and others (R3, R4)."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, V1, V2, Peer, connected, next_refusal, until, wait_readable
from proxyproto_rs import AddressSet, Listener, ProxiedSocket, Refusal

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

LOOPBACK = ["127.0.0.0/8", "::1"]
NOBODY: list[str] = []
MQTT_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"


def accept(listener: Listener) -> ProxiedSocket:
    listener.settimeout(30)
    sock, _ = listener.accept()
    return sock


def test_optional_needs_to_know_the_proxies() -> None:
    with pytest.raises(ValueError, match=r'trusted is needed with proxy_protocol="optional"'):
        Listener("127.0.0.1", 0, proxy_protocol="optional")


@pytest.mark.parametrize(
    ("first_bytes", "outcome"),
    [
        pytest.param(V1, "v1", id="R32-v1"),
        pytest.param(V2, "v2", id="R32-v2"),
        pytest.param(LOCAL, "local", id="R23"),
        pytest.param(MQTT_CONNECT, "direct", id="mqtt"),
        pytest.param(b"\x16\x03\x01", "direct", id="tls"),
        pytest.param(b"GET / HTTP/1.1\r\n", "direct", id="http-get"),
        pytest.param(b"PUT / HTTP/1.1\r\n", "direct", id="http-put"),
        pytest.param(b"\x10", "direct", id="one-byte"),
    ],
)
def test_in_optional_the_first_byte_decides(first_bytes: bytes, outcome: str) -> None:
    with (
        Listener("127.0.0.1", 0, proxy_protocol="optional", trusted=LOOPBACK) as listener,
        Peer(listener.getsockname(), first_bytes, b"rest") as peer,
    ):
        peer.end()
        with accept(listener) as sock:
            received = b"".join(iter(lambda: sock.recv(100), b""))
            assert received == (first_bytes if outcome == "direct" else b"") + b"rest"
            assert (sock.header is None) == (outcome == "direct")
        assert listener.stats()[outcome] == 1


def test_in_optional_silence_is_refused_at_the_deadline() -> None:
    options: dict[str, Any] = {"proxy_protocol": "optional", "trusted": LOOPBACK, "header_timeout": 0.05}
    with Listener("127.0.0.1", 0, **options) as listener, Peer(listener.getsockname()) as peer:
        assert peer.sees_the_end()
        assert listener.stats()["timeout"] == 1


def test_off_refuses_a_header_and_says_what_to_change(caplog: pytest.LogCaptureFixture) -> None:
    # "off" never waits, so the header must be there before the Listener looks.

    listening = socket.create_server(("127.0.0.1", 0))
    with Peer(listening.getsockname(), V2) as peer:
        refusals: list[Refusal] = []
        with Listener.adopt(listening, proxy_protocol="off", on_refused=refusals.append) as listener:
            with caplog.at_level(logging.WARNING, "proxyproto_rs.listener"):
                assert next_refusal(listener, refusals).reason == "unexpected-header"
            assert peer.sees_the_end()
    assert 'set it to "required"' in caplog.text
    assert "PROXY header of version 2" in refusals[0].detail


def test_off_serves_whoever_comes_even_in_silence() -> None:
    with Listener("127.0.0.1", 0, proxy_protocol="off") as listener, Peer(listener.getsockname()) as peer:
        with accept(listener) as sock:
            assert sock.getpeername() == peer.sock.getsockname()
        assert listener.stats()["direct"] == 1


def test_an_untrusted_peer_is_refused_before_its_bytes_matter(caplog: pytest.LogCaptureFixture) -> None:
    refusals: list[Refusal] = []
    with (
        caplog.at_level(logging.WARNING, "proxyproto_rs.listener"),
        Listener("127.0.0.1", 0, trusted=["192.0.2.0/24"], on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), V1) as peer,
    ):
        refusal = next_refusal(listener, refusals)
        assert peer.sees_the_end()
    assert (refusal.reason, refusal.client) == ("untrusted", None)
    assert "if 127.0.0.1 is one of yours, add it" in caplog.text


def test_an_untrusted_peer_that_is_served_directly_cannot_claim_to_be_anybody() -> None:
    with (
        Listener("127.0.0.1", 0, trusted=NOBODY, untrusted="direct") as listener,
        Peer(listener.getsockname(), V1) as peer,
    ):
        with accept(listener) as sock:
            assert sock.header is None
            assert sock.getpeername() == peer.sock.getsockname()
            assert sock.recv(100) == V1
        assert listener.stats()["direct"] == 1


def test_a_header_that_names_loopback_makes_nobody_trusted() -> None:
    header = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"
    refusals: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.2"], on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), header),
    ):
        assert next_refusal(listener, refusals).reason == "untrusted"


def test_an_ipv4_peer_of_a_dual_stack_socket_matches_ipv4_entries() -> None:
    with (
        Listener("", 0, trusted=["127.0.0.0/8"]) as listener,
        Peer(("127.0.0.1", listener.getsockname()[1]), V1),
        accept(listener) as sock,
    ):
        assert sock.getpeername() == CLIENT
        assert sock.proxy_peername[0] == "::ffff:127.0.0.1"


def link_local() -> tuple[str, int] | None:
    """An address of this machine that is one on an interface only: as text with its scope, and the interface's number."""
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as table:
        for line in table:
            digits, number, _, _, _, name = line.split()
            if digits.startswith("fe80"):
                address = ipaddress.IPv6Address(int(digits, 16))
                return f"{address}%{name}", int(number, 16)
    return None


LINK_LOCAL = link_local()


@pytest.mark.skipif(LINK_LOCAL is None, reason="no interface here has a link-local address")
@pytest.mark.parametrize(
    ("entry", "is_trusted"),
    [
        ("{}", True),
        ("{host}%{number}", True),
        ("fe80::%{name}/10", True),
        ("::/0", True),
        ("{host}", False),
        ("fe80::/10", False),
        ("{host}%lo", False),
        ("{host}%1000000", False),
    ],
)
def test_a_link_local_proxy_is_believed_on_its_interface(entry: str, is_trusted: bool) -> None:
    assert LINK_LOCAL is not None
    scoped, number = LINK_LOCAL
    host, name = scoped.split("%")
    entry = entry.format(scoped, host=host, name=name, number=number)
    refusals: list[Refusal] = []
    with (
        Listener(scoped, 0, trusted=[entry], on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), V1) as peer,
    ):
        if is_trusted:
            with accept(listener) as sock:
                assert sock.proxy_peername == peer.sock.getsockname()
                assert sock.proxy_peername[::3] == (host, number)
            return
        refusal = next_refusal(listener, refusals)
        assert refusal.peer == peer.sock.getsockname()
        assert refusal.listener == f"[{scoped}]:{listener.getsockname()[1]}"
    assert refusal.reason == "untrusted"
    assert f"{scoped} is not in trusted= (1 network)" in refusal.detail
    assert (f"write {scoped}" in refusal.detail) == ("%" not in entry)


@pytest.mark.skipif(LINK_LOCAL is None, reason="no interface here has a link-local address")
@pytest.mark.parametrize(
    ("rules", "is_served"),
    [
        ({"deny": ["{host}"]}, False),
        ({"deny": ["{host}%{name}"]}, False),
        ({"deny": ["{host}%lo"]}, True),
        ({"allow": ["{host}%{name}"]}, True),
        ({"allow": ["{host}"]}, False),
    ],
    ids=str,
)
def test_a_rule_about_a_link_local_client_fails_closed(rules: dict[str, list[str]], is_served: bool) -> None:
    assert LINK_LOCAL is not None
    scoped, _ = LINK_LOCAL
    host, name = scoped.split("%")
    options: dict[str, Any] = {
        option: [entry.format(host=host, name=name) for entry in entries] for option, entries in rules.items()
    }
    refusals: list[Refusal] = []
    with (
        Listener(scoped, 0, proxy_protocol="off", on_refused=refusals.append, **options) as listener,
        Peer(listener.getsockname()) as peer,
    ):
        if is_served:
            with accept(listener) as sock:
                assert sock.getpeername() == peer.sock.getsockname()
            return
        refusal = next_refusal(listener, refusals)
        assert refusal.client == peer.sock.getsockname()
    assert refusal.reason == "denied"


def test_peers_of_a_unix_socket_are_trusted(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with Listener.unix(path, trusted=NOBODY) as listener, Peer(path, V1), accept(listener) as sock:
        assert sock.getpeername() == CLIENT
        assert sock.proxy_peername == ""


def test_without_a_list_every_peer_is_believed_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "proxyproto_rs.listener"), Listener("127.0.0.1", 0) as listener:
        for _ in range(3):
            with Peer(listener.getsockname(), V1), accept(listener) as sock:
                assert sock.getpeername() == CLIENT
    assert caplog.text.count("believes the PROXY header of every peer: set trusted=") == 1


def test_a_shared_set_is_live() -> None:
    trusted = AddressSet()
    with (
        Listener("127.0.0.1", 0, trusted=trusted) as one,
        Listener("127.0.0.1", 0, trusted=trusted) as other,
    ):
        with Peer(one.getsockname(), V1) as peer:
            assert peer.sees_the_end()
        trusted.add("127.0.0.1")
        for listener in (one, other):
            with Peer(listener.getsockname(), V1), accept(listener):
                pass
        trusted.discard("127.0.0.1")
        with Peer(other.getsockname(), V1) as peer:
            assert peer.sees_the_end()
        until(lambda: other.stats()["untrusted"] == 1)


async def test_a_server_behind_optional_serves_both_kinds() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(writer.get_extra_info("peername")[0].encode())
        writer.close()
        await writer.wait_closed()

    listener = Listener("127.0.0.1", 0, proxy_protocol="optional", trusted=LOOPBACK)
    async with await listener.start_server(greet) as server:
        address = server.sockets[0].getsockname()
        for header, expected in [(V2, b"192.0.2.1"), (b"", b"127.0.0.1")]:
            async with connected(address, header, b"x") as (reader, _):
                assert await reader.read() == expected


def test_trust_is_of_the_peer_so_a_closed_one_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, "proxyproto_rs.listener"),
        Listener("127.0.0.1", 0, trusted=LOOPBACK) as listener,
    ):
        caplog.clear()
        Peer(listener.getsockname()).sock.close()
        until(lambda: listener.stats()["closed-early"] == 1)
        assert not wait_readable(listener.fileno(), 0)
    assert not caplog.records
