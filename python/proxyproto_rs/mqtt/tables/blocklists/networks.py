"""How lists write networks, and which of them no list may keep out."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from proxyproto_rs import AddressSet

from ...model.networks import IPNetwork, network_text, parse_network

Entry = TypeVar("Entry")

MOST_NETWORKS = 1_000_000
"""Networks of one list. More are a mistake: an IPv4 Internet of /24s has 16 million."""

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_PLAIN_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_NONE = AddressSet()


_AT_ONCE = 64  # entries, about 1 ms of work
_PAUSE = 0.0001  # seconds; with 0 this thread takes the interpreter back before another has woken up


def with_pauses(entries: Iterable[Entry], at_once: int = _AT_ONCE) -> Iterator[Entry]:
    """Iterate in a thread, and let the event loop go on after every `at_once`. Otherwise it would wait 5 ms each time."""
    for position, entry in enumerate(entries, 1):
        yield entry
        if position % at_once == 0:
            time.sleep(_PAUSE)


class UnusableList(Exception):
    """What came is no list. The text is for the operator."""


def one_spelling(text: str) -> str:
    """Return the one way in which a network is written here. Host bits are cut off, as CrowdSec does.

    Raises ValueError if it is no address and no network.
    """
    if _PLAIN_IPV4.fullmatch(text):
        # The core raises ValueError for 999.1.1.1 and 01.2.3.4, in a tenth of ipaddress's time.
        _ = text in _NONE
        return text
    return network_text(parse_network(str(ipaddress.ip_network(text, strict=False))))


class Protected:
    """The proxies and the loopback networks. A list that names one would shut out every client behind it."""

    def __init__(self, proxies: Iterable[IPNetwork]) -> None:
        proxies = tuple(proxies)
        self._inside = AddressSet(proxies)
        wider: set[str] = set()
        for network in proxies:
            wider |= _around(network)
        for network in _LOOPBACK:
            # One address of loopback may be a client; the whole of it may not be kept out.
            wider |= (
                _around(network) if network.prefixlen < network.max_prefixlen else _around(network.supernet())
            )
        self._wider = frozenset(wider)

    def covers(self, network: str) -> bool:
        """Whether a network, in its one spelling, holds a proxy or lies among them."""
        return network in self._wider or network in self._inside


class Ignored:
    """Counts what a list holds and cannot be used, by kind, with the first of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, kind: str, what: object) -> None:
        """Count one."""
        self.counts[kind] += 1
        self.first.setdefault(kind, str(what)[:100])


def _around(network: IPNetwork) -> set[str]:
    return {network_text(network.supernet(new_prefix=bits)) for bits in range(network.prefixlen + 1)}
