"""How the broker reads and writes addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from proxyproto_rs import AddressSet

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_network(value: Any) -> IPNetwork:
    """Parse an address or a CIDR. An IPv4-mapped one becomes the IPv4 one that it stands for.

    Raises ValueError with a text that follows the value's name. Host bits are an error and are not cut off,
    because 10.0.0.1/8 may mean one address or sixteen million.
    """
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        value = str(value)
    text = value.strip() if isinstance(value, str) else ""
    try:
        return _unmap(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be an IP address or a network such as 10.0.0.0/8") from None
    raise ValueError(f"has host bits set: write {meant} or the address alone")


def network_text(network: IPNetwork) -> str:
    """Write a network as `203.0.113.7`, `10.0.0.0/8` or `2001:db8::/32`. A single address has no prefix length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def parse_address(text: str) -> IPAddress | None:
    """Parse an address; None if `text` is not one. IPv4-mapped addresses become IPv4, a zone is cut off."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def covers(network: IPNetwork) -> Callable[[str], bool]:
    """Return a function that says whether an address, as text, is in the network. What is no address is in none.

    It takes 0.1 us. Parsing the address takes 8, and a list may have 100,000 rows.
    """
    networks = AddressSet([network])

    def is_inside(text: str) -> bool:
        try:
            return text in networks
        except ValueError:
            return False

    return is_inside


def client_network(address: IPAddress, ipv6_prefix: int) -> IPNetwork:
    """Return the network that counts as one client: the address itself in IPv4, its /`ipv6_prefix` in IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network(address)
    return ipaddress.IPv6Network((address, ipv6_prefix), strict=False)


def _unmap(network: IPNetwork) -> IPNetwork:
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:  # noqa: PLR2004 (::ffff:0:0/96 holds the mapped addresses)
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
