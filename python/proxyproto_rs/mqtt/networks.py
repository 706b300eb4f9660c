"""Addresses and networks as they are read and written in all of this part."""

from __future__ import annotations

import ipaddress
from typing import Any

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_network(value: Any) -> IPNetwork:
    """An address or a CIDR. An IPv4-mapped one is the IPv4 one it means.

    Raises ValueError, with a text that follows the value's name; host bits are an error, not cut off:
    10.0.0.1/8 may mean one address or sixteen million.
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
    """`203.0.113.7`, `10.0.0.0/8`, `2001:db8::/32`: an address alone has no prefix length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def parse_address(text: str) -> IPAddress | None:
    """The address in `text`, IPv4-mapped ones as IPv4, a zone cut off; None for what is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_network(address: IPAddress, ipv6_prefix: int) -> IPNetwork:
    """The network that counts as one client: the address alone in IPv4, its /`ipv6_prefix` in IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Network(address)
    return ipaddress.IPv6Network((address, ipv6_prefix), strict=False)


def _unmap(network: IPNetwork) -> IPNetwork:
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:  # noqa: PLR2004 (::ffff:0:0/96 holds the mapped addresses)
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
