"""The options of a Listener, for readers and type checkers. The acceptor knows the defaults and checks the values."""

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
    """The options of a Listener: keywords of its constructors and of `Listener.update`.

    A network is an address or a CIDR: a str, or an object of `ipaddress`. An `AddressSet` can be shared and changed.
    """

    proxy_protocol: Literal["required", "optional", "off"]
    """Whether a connection begins with a header (R3). "required" is the default. "optional" needs `trusted`, and
    waits for the first byte, so it does not fit protocols in which the server speaks first. "off" refuses
    headers."""
    trusted: Networks | None
    """The networks of the proxies whose headers are believed (R4). None, the default, believes every peer. A
    link-local address needs its interface ("fe80::1%eth0"). Without one it matches no peer."""
    untrusted: Literal["refuse", "direct"]
    """What happens to other peers. "refuse", the default, closes them. "direct" serves them as clients, and does not
    look for a header in what they send."""

    versions: Iterable[int]
    """The versions of the protocol to accept: 1, 2 or both. (1, 2) is the default."""
    max_header_size: int
    """The longest header to accept, in bytes: 16 to 65551. 4096 is the default."""
    header_timeout: float
    """How long a connection may take for its whole header, in seconds: more than 0, at most 3600. 5 is the default.
    R2 recommends at least 3."""
    max_pending: int
    """How many connections may wait for their header: at least 1. 4096 is the default. One more closes the one that has
    waited longest. All Listeners together use at most half of the file descriptors of the process."""
    defer_accept: bool | None
    """Whether the kernel keeps a connection until its first bytes are there (TCP_DEFER_ACCEPT). None, the default,
    does so on sockets that we have bound, if every peer must send a header."""
    health_checks: Literal["deliver", "close"]
    """What happens to connections of the proxy itself (LOCAL, UNKNOWN). "deliver", the default, serves them. "close"
    counts and closes them."""

    allow: Networks | None
    """The networks of the clients to serve. None, the default, serves all."""
    deny: Networks | None
    """The networks of the clients to refuse, even if `allow` has them. A link-local address without an interface is
    denied on all of them."""
    max_connections: int | None
    """How many connections of clients may be open: at least 1. None, the default, sets no limit."""
    max_connections_per_client: int | None
    """How many connections one client may have open: at least 1. None, the default, sets no limit. All IPv6 addresses of
    a /64 are one client."""
    max_rate_per_client: float | None
    """How many connections one client may open per second, in the long run: 1e-9 to 1e9. None, the default, sets no
    limit."""
    burst_per_client: int | None
    """How many of them one client may open at once: at least 1. None, the default, is `max_rate_per_client`, rounded
    up."""
    client_limits: ClientLimits | None
    """The three limits above for several Listeners together. Give either this or those."""
    require_tls: bool
    """Whether to refuse clients whose header does not say that they use TLS. False is the default."""
    require_client_cert: bool
    """Whether to refuse clients whose header does not say that the proxy has verified their certificate. False is the
    default."""

    allow_mixed_families: bool
    """Whether a header of version 1 may have a source and a destination of different families, as nginx writes it
    behind its realip module (bends R13). False is the default."""
    reject_unspec: bool
    """Whether to refuse headers of the command PROXY that name no client: UNKNOWN and UNSPEC (R10 and R26 permit
    both). False is the default."""
    ignore_malformed_tlvs: bool
    """Whether to accept a header with malformed TLVs, and to keep those before the first malformed one. A wrong
    checksum stays an error (R34). False is the default."""


class BindOptions(ListenerOptions, total=False):
    """All keywords of the constructor of `Listener`, for functions that pass them on."""

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
