"""AddressSet: a set of networks that several listeners hold."""

from __future__ import annotations

import ipaddress
import threading
from typing import Any

import pytest

from peers import Peer, next_refusal, until
from proxyproto_rs import AddressSet, Header, Listener, Refusal


def test_it_holds_addresses_and_networks_of_both_families() -> None:
    networks = AddressSet(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "::1"])
    assert list(networks) == ["10.0.0.0/8", "192.0.2.1", "::1", "2001:db8::/32"]
    assert len(networks) == 4
    assert repr(networks) == "<AddressSet of 4 networks>"


def test_ipaddress_objects_are_networks_too() -> None:
    networks = AddressSet([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_address("::1")])
    assert ipaddress.ip_address("10.1.2.3") in networks
    assert list(networks) == ["10.0.0.0/8", "::1"]


def test_a_link_local_address_is_of_its_interface() -> None:
    texts = ["fe80::/64", "fe80::1%1000000", "fe80::1%eth0", "fe80::%eth1/64"]
    networks = AddressSet(reversed(texts))
    assert list(networks) == texts
    networks.add(ipaddress.ip_address("fe80::1%eth0"))
    networks.discard(ipaddress.ip_network("fe80::%eth1/64"))
    assert list(networks) == texts[:3]
    assert "fe80::1%eth0" in networks
    assert ipaddress.ip_address("fe80::1%eth0") in networks
    assert "fe80::2" in networks
    for other in ("fe80::2%eth0", "fe80::1%eth1", "fe80::1%1000001"):
        assert other not in networks
    networks.add("::/0")
    assert "fe80::2%eth0" in networks


@pytest.mark.parametrize(
    ("network", "is_in"),
    [
        ("10.1.2.3", True),
        ("10.1.0.0/16", True),
        ("10.0.0.0/7", False),
        ("11.0.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
    ],
)
def test_in_is_whether_one_entry_covers_it(network: str, is_in: bool) -> None:
    assert (network in AddressSet(["10.0.0.0/8", "2001:db8::/32"])) == is_in


def test_adding_and_discarding() -> None:
    networks = AddressSet()
    networks.add("192.0.2.0/24")
    networks.add("192.0.2.0/24")
    assert len(networks) == 1
    networks.discard("192.0.2.1")
    assert "192.0.2.1" in networks
    networks.discard("192.0.2.0/24")
    assert "192.0.2.1" not in networks
    networks.discard("192.0.2.0/24")


def test_an_entry_can_end() -> None:
    networks = AddressSet(["192.0.2.0/24"])
    networks.add("192.0.2.1", expires=0.01)
    networks.add("198.51.100.1", expires=0.01)
    networks.add("198.51.100.2", expires=1e300)
    until(lambda: "198.51.100.1" not in networks)
    assert list(networks) == ["192.0.2.0/24", "198.51.100.2"]
    assert "192.0.2.1" in networks


def test_entries_that_have_ended_are_neither_counted_nor_listed() -> None:
    networks = AddressSet(["192.0.2.0/24"])
    for number in range(1000):
        networks.add(f"10.0.{number // 256}.{number % 256}", expires=0.001)
    networks.add("198.51.100.1", expires=0.01)
    until(lambda: "198.51.100.1" not in networks)
    assert len(networks) == 1
    assert repr(networks) == "<AddressSet of 1 networks>"
    assert list(networks) == ["192.0.2.0/24"]


def test_adding_again_without_an_end_makes_it_last() -> None:
    networks = AddressSet()
    networks.add("192.0.2.1", expires=0.01)
    networks.add("192.0.2.1")
    networks.add("192.0.2.2", expires=0.01)
    until(lambda: "192.0.2.2" not in networks)
    assert "192.0.2.1" in networks


WRONG: list[tuple[Any, type[Exception], str]] = [
    ("10.0.0.1/8", ValueError, "has host bits set"),
    ("10.0.0.0/33", ValueError, "is not an IPv4 or IPv6 address or network"),
    ("fe80::1%", ValueError, "names no interface behind its %"),
    ("fe80::1%eth0/64", ValueError, "has host bits set"),
    ("2001:db8::1%eth0", ValueError, r"has a scope, which only link-local addresses \(fe80::/10\) have"),
    ("", ValueError, "is not an IPv4 or IPv6 address or network"),
    (b"10.0.0.1", TypeError, "must be str or an object of ipaddress, not bytes"),
    (None, TypeError, "must be str or an object of ipaddress, not NoneType"),
]


@pytest.mark.parametrize(("network", "error", "text"), WRONG, ids=[repr(row[0]) for row in WRONG])
@pytest.mark.parametrize("method", ["add", "discard", "__contains__"])
def test_what_is_no_network_is_an_error(method: str, network: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        getattr(AddressSet(), method)(network)


def test_an_end_is_a_number() -> None:
    with pytest.raises(TypeError, match="expires must be a number of seconds or None, not str"):
        AddressSet().add("192.0.2.1", expires="1s")  # type: ignore[arg-type]


@pytest.mark.parametrize("expires", [0, -1, float("nan")])
def test_an_end_in_the_past_is_an_error(expires: float) -> None:
    with pytest.raises(ValueError, match="expires must be greater than 0 seconds"):
        AddressSet().add("192.0.2.1", expires=expires)


def test_one_text_is_not_a_set_of_them() -> None:
    with pytest.raises(TypeError, match=r"did you mean \['10.0.0.0/8'\]\?"):
        AddressSet("10.0.0.0/8")


def test_threads_may_change_it_at_once() -> None:
    networks = AddressSet()

    def add_and_discard(part: int) -> None:
        for number in range(500):
            networks.add(f"10.{part}.{number // 256}.{number % 256}")
            assert f"10.{part}.{number // 256}.{number % 256}" in networks
            if number % 2:
                networks.discard(f"10.{part}.{number // 256}.{number % 256}")

    threads = [threading.Thread(target=add_and_discard, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(networks) == 4 * 250


def test_included_sets_are_looked_into_and_named_by_refusals() -> None:
    deny, others = AddressSet(["192.0.2.66"]), AddressSet(["127.0.0.0/8"])
    deny.include({"others": others, "itself": deny})
    assert "127.1.2.3" in deny
    assert (list(deny), len(deny)) == (["192.0.2.66"], 1)
    refused: list[Refusal] = []
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], deny=deny, on_refused=refused.append) as listener:
        header = Header.v2(("127.0.0.9", 1), ("127.0.0.1", 2)).encode()
        with Peer(listener.getsockname(), header):
            assert next_refusal(listener, refused).detail == "deny 127.0.0.0/8 of others covers it"
    deny.include({})
    assert "127.1.2.3" not in deny


@pytest.mark.parametrize("wrong", [None, [AddressSet()], {"a": ["192.0.2.1"]}, {1: AddressSet()}, "a"])
def test_what_cannot_be_included(wrong: Any) -> None:
    with pytest.raises(TypeError, match="sets must be a mapping of names to AddressSets"):
        AddressSet().include(wrong)
