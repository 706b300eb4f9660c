"""Finds the client in X-Forwarded-For. Only a trusted proxy is believed, and the header is read from its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..model.networks import IPAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import ForwardedConfig

_MAX_HOPS = 64
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def forwarded_client(peer: str, headers: Iterable[tuple[str, str]], options: ForwardedConfig) -> str | None:
    """Find the client: from the right, the first address that is not a trusted proxy.

    Anybody may have written what stands left of it. `headers` have lower-case names, in the order of the
    request. The first of `options.headers` that occurs is used. Returns None if the peer is not trusted, or
    if no such header occurs.

    Raises:
        ValueError: The header holds something that is not an address, or more than 64 addresses.
    """
    if not _trusted(parse_address(peer), options):
        return None
    pairs = list(headers)
    for wanted in options.headers:
        values = [value for name, value in pairs if name == wanted.lower()]
        if values:
            return _rightmost_stranger(wanted, ",".join(values), options)
    return None


def _rightmost_stranger(name: str, value: str, options: ForwardedConfig) -> str:
    hops = value.split(",")
    if len(hops) > _MAX_HOPS:
        raise ValueError(f"{name} names more than {_MAX_HOPS} addresses")
    address: IPAddress | None = None
    for hop in reversed(hops):
        address = _address(hop.strip())
        if address is None:
            raise ValueError(f"{name} holds {hop.strip()[:64]!r}, which is not an address")
        if not _trusted(address, options):
            break
    return str(address)


def _address(text: str) -> IPAddress | None:
    # Some proxies add the port. An IPv6 address alone has no brackets.
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    return None if "%" in text else parse_address(text)


def _trusted(address: IPAddress | None, options: ForwardedConfig) -> bool:
    return address is not None and any(address in network for network in options.trusted)
