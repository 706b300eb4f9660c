"""Limits: connections and rates of one client, of one listener, and over several listeners."""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Any

import pytest

from peers import LOCAL, Peer, until
from proxyproto_rs import ClientLimits, Listener, ProxiedSocket

TRUSTED: dict[str, Any] = {"trusted": ["127.0.0.0/8"]}


def from_client(host: str) -> bytes:
    family, own = ("TCP6", "::1") if ":" in host else ("TCP4", "198.51.100.2")
    return f"PROXY {family} {host} {own} 1 2\r\n".encode()


class Clients:
    """Connects clients to one Listener and keeps their ends open."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        listener.settimeout(30)
        self.ends = contextlib.ExitStack()

    def serve(self, host: str) -> ProxiedSocket:
        """Connect a client that is served."""
        self.ends.enter_context(Peer(self._listener.getsockname(), from_client(host)))
        sock, address = self._listener.accept()
        assert address[0] == host
        return sock

    def is_refused(self, host: str, outcome: str) -> bool:
        """Connect a client; return whether it is refused with this outcome."""
        before = self._listener.stats()[outcome]
        with Peer(self._listener.getsockname(), from_client(host)) as peer:
            return peer.sees_the_end() and self._listener.stats()[outcome] == before + 1


def give_back_by_close(sock: ProxiedSocket) -> None:
    sock.close()


def give_back_by_detach(sock: ProxiedSocket) -> None:
    os.close(sock.detach())


def give_back_by_makefile(sock: ProxiedSocket) -> None:
    file = sock.makefile("rb")
    sock.close()
    file.close()


def give_back_both_copies(sock: ProxiedSocket) -> None:
    copy = sock.dup()
    sock.close()
    copy.close()


@pytest.mark.parametrize(
    "give_back", [give_back_by_close, give_back_by_detach, give_back_by_makefile, give_back_both_copies]
)
def test_a_place_is_given_back_exactly_once(give_back: Any) -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections_per_client=2) as listener:
        clients = Clients(listener)
        with clients.ends, clients.serve("192.0.2.1"):
            for _ in range(5):
                sock = clients.serve("192.0.2.1")
                assert clients.is_refused("192.0.2.1", "too-many-from-client")
                give_back(sock)
                sock.close()
        assert listener.stats().open == 0


def test_a_place_is_kept_while_a_copy_is_open() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections_per_client=1) as listener:
        clients = Clients(listener)
        with clients.ends:
            sock = clients.serve("192.0.2.1")
            with sock.dup():
                sock.close()
                assert clients.is_refused("192.0.2.1", "too-many-from-client")
            clients.serve("192.0.2.1").close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_place_is_given_back_at_collection() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections_per_client=1) as listener:
        clients = Clients(listener)
        with clients.ends:
            for _ in range(3):
                clients.serve("192.0.2.1")
                gc.collect()
            assert listener.stats().open == 0


def test_one_client_does_not_fill_anothers_place() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections_per_client=1) as listener:
        clients = Clients(listener)
        with clients.ends, clients.serve("192.0.2.1"), clients.serve("192.0.2.2"):
            assert clients.is_refused("192.0.2.1", "too-many-from-client")


def test_an_ipv6_client_is_its_64() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections_per_client=1) as listener:
        clients = Clients(listener)
        with clients.ends, clients.serve("2001:db8::1"), clients.serve("2001:db8:0:1::1"):
            assert clients.is_refused("2001:db8::ffff:2", "too-many-from-client")


def test_the_listener_is_full_but_for_the_proxy_itself() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections=1) as listener:
        clients = Clients(listener)
        with clients.ends, clients.serve("192.0.2.1"):
            assert clients.is_refused("192.0.2.2", "too-many")
            with Peer(listener.getsockname(), LOCAL), listener.accept()[0]:
                assert listener.stats().open == 2


def test_a_rate_has_its_burst_and_is_each_clients_own() -> None:
    options: dict[str, Any] = {"max_rate_per_client": 0.001, "burst_per_client": 3}
    with Listener("127.0.0.1", 0, **TRUSTED, **options) as listener:
        clients = Clients(listener)
        with clients.ends:
            for _ in range(3):
                clients.serve("192.0.2.1").close()
            assert clients.is_refused("192.0.2.1", "rate-limited")
            clients.serve("192.0.2.2").close()


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [({"max_connections": 1}, "too-many"), ({"max_connections_per_client": 1}, "too-many-from-client")],
    ids=str,
)
def test_who_finds_no_place_keeps_its_rate(limit: dict[str, Any], outcome: str) -> None:
    with Listener(
        "127.0.0.1", 0, **TRUSTED, **limit, max_rate_per_client=0.001, burst_per_client=2
    ) as listener:
        clients = Clients(listener)
        with clients.ends:
            with clients.serve("192.0.2.1"):
                for _ in range(3):
                    assert clients.is_refused("192.0.2.1", outcome)
            clients.serve("192.0.2.1").close()
            assert clients.is_refused("192.0.2.1", "rate-limited")


def test_limits_that_are_shared_count_over_all_listeners() -> None:
    limits = ClientLimits(max_connections=1)
    with (
        Listener("127.0.0.1", 0, **TRUSTED, client_limits=limits) as one,
        Listener("127.0.0.1", 0, **TRUSTED, client_limits=limits) as other,
    ):
        clients, others = Clients(one), Clients(other)
        with clients.ends, others.ends:
            with clients.serve("192.0.2.1"):
                assert others.is_refused("192.0.2.1", "too-many-from-client")
            others.serve("192.0.2.1").close()


def test_an_update_counts_who_is_connected_already() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED) as listener:
        clients = Clients(listener)
        with clients.ends, clients.serve("192.0.2.1"):
            listener.update(max_connections_per_client=1)
            assert clients.is_refused("192.0.2.1", "too-many-from-client")


def test_a_refused_client_takes_no_place() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED, max_connections=1, max_connections_per_client=1) as listener:
        clients = Clients(listener)
        with clients.ends:
            with clients.serve("192.0.2.1"):
                assert clients.is_refused("192.0.2.2", "too-many")
            clients.serve("192.0.2.2").close()


def test_places_come_back_when_a_listener_closes_with_connections_ready() -> None:
    limits = ClientLimits(max_connections=1)
    with Listener("127.0.0.1", 0, **TRUSTED, client_limits=limits) as one:
        peer = Peer(one.getsockname(), from_client("192.0.2.1"))
        until(lambda: one.stats().ready == 1)
    peer.sock.close()
    with Listener("127.0.0.1", 0, **TRUSTED, client_limits=limits) as other:
        clients = Clients(other)
        with clients.ends:
            clients.serve("192.0.2.1").close()


def test_limits_say_what_they_are() -> None:
    limits = ClientLimits(max_connections=10, max_rate=2.5, ipv6_prefix=56)
    assert (limits.max_connections, limits.max_rate, limits.burst, limits.ipv6_prefix) == (10, 2.5, 3, 56)
    assert repr(limits) == "ClientLimits(max_connections=10, max_rate=2.5, burst=3, ipv6_prefix=56)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_connections": 0}, r"max_connections must be at least 1 \(None means no limit\), not 0"),
        ({"max_connections": -1}, "max_connections must be at least 1"),
        ({"max_rate": 0}, "max_rate must be greater than 0"),
        ({"max_rate": float("nan")}, "max_rate must be greater than 0"),
        ({"max_rate": float("inf")}, "max_rate must be greater than 0"),
        ({"max_rate": 1, "burst": 0}, "burst must be at least 1"),
        ({"burst": 5}, "burst means nothing without max_rate"),
        ({"ipv6_prefix": 0}, "ipv6_prefix must be from 1 to 128, not 0"),
        ({"ipv6_prefix": 129}, "ipv6_prefix must be from 1 to 128, not 129"),
    ],
)
def test_a_limit_that_is_none_is_an_error(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ClientLimits(**arguments)
