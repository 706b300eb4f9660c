"""The keyword options of a Listener, for readers and type checkers.

The acceptor has the defaults and checks what is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias, TypedDict

from ._core import AddressSet, ClientLimits
from ._reports import OnRefused

__all__ = ["ListenerOptions"]

Networks: TypeAlias = AddressSet | Iterable[str | IPv4Address | IPv6Address | IPv4Network | IPv6Network]


class ListenerOptions(TypedDict, total=False):
    """What every constructor of `Listener` and `Listener.update` take."""

    proxy_protocol: Literal["required", "optional", "off"]
    """Whether connections begin with a header (R3); "required" by default. "optional" needs `trusted`, and
    waits for the peer's first byte, so a protocol in which the server speaks first does not fit. "off"
    refuses headers."""
    trusted: Networks | None
    """The proxies that are believed (R4): addresses and CIDRs. None, the default, believes every peer. A
    link-local proxy needs its interface ("fe80::1%eth0"): without one the entry is no peer's."""
    untrusted: Literal["refuse", "direct"]
    """What becomes of other peers: closed, as by default, or served as clients, whatever they send."""

    versions: Iterable[int]
    """The versions of the protocol that are allowed; (1, 2) by default."""
    max_header_size: int
    """The longest header in bytes; 4096 by default."""
    header_timeout: float
    """Seconds a connection has for its whole header; 5 by default (R2 recommends at least 3)."""
    max_pending: int
    """How many connections may wait for their header; 4096 by default. One more closes the one that
    has waited longest."""
    defer_accept: bool | None
    """Whether the kernel keeps a connection until it has sent something. None, the default: where a header is
    required of everybody, on sockets we have bound."""
    health_checks: Literal["deliver", "close"]
    """What becomes of connections in which the proxy itself speaks (LOCAL, UNKNOWN): served, as by
    default, or closed."""

    allow: Networks | None
    """The clients that are served; None, the default, for all."""
    deny: Networks | None
    """The clients that are not, whatever `allow` says. A link-local entry without an interface is for all of them."""
    max_connections: int | None
    """How many connections of clients may be open; None, the default, for no limit."""
    max_connections_per_client: int | None
    """How many of them one client may have; an IPv6 client is its /64."""
    max_rate_per_client: float | None
    """How many one client may open in a second, in the long run."""
    burst_per_client: int | None
    """How many of these it may open at once."""
    client_limits: ClientLimits | None
    """In place of the three `..._per_client`: limits that several Listeners share."""
    require_tls: bool
    """Refuse clients of which the header does not say that they used TLS."""
    require_client_cert: bool
    """Refuse clients of which the header does not say that their certificate was verified."""

    allow_mixed_families: bool
    """Accept a source and a destination of different families in version 1, as nginx's realip sends them."""
    reject_unspec: bool
    """Refuse headers that name nobody (R26 leaves it open)."""
    ignore_malformed_tlvs: bool
    """Accept a header whose TLVs are malformed. A wrong checksum stays an error."""


class BindOptions(ListenerOptions, total=False):
    """What the constructor of `Listener` takes as keywords, for functions that pass them on."""

    backlog: int
    ahead: int | None
    reuse_port: bool
    dualstack: bool | None
    on_refused: OnRefused | None


def check_names(
    function: Callable[..., object], options: Mapping[str, object], known: type = ListenerOptions
) -> None:
    """Raise a TypeError as Python 3.13 does, if there is an option that is not in `known`, a TypedDict."""
    for name in options:
        if name in known.__annotations__:
            continue
        import difflib

        parameters = inspect.signature(function).parameters.values()
        keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        near = difflib.get_close_matches(name, [*keywords, *known.__annotations__], n=1)
        suggestion = f". Did you mean {near[0]!r}?" if near else ""
        called = function.__qualname__.removesuffix(".__init__")
        raise TypeError(f"{called}() got an unexpected keyword argument {name!r}{suggestion}")
