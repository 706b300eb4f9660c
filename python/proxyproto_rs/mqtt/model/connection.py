"""The facts of one connection before MQTT begins: its client, the proxy it came through, and its TLS.

Plugins find it in ``session.attributes["proxyproto_rs.connection"]``.
"""

from __future__ import annotations

import functools
import sys
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from proxyproto_rs import Header
from proxyproto_rs._core import Arrival

from .networks import parse_address

Address = tuple[str, int]
"""A host in canonical text and a port.

An IPv4-mapped address is written as IPv4, a zone is left out. A UNIX path has port 0.
"""

AddressSource = Literal["header", "forwarded", "peer"]


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """The TLS of a connection, as the proxy reports it or as our own handshake found it."""

    ended_at: Literal["proxy", "broker"]
    version: str | None
    cipher: str | None
    sni: str | None
    client_cert_cn: str | None
    client_cert_verified: bool


@dataclass(slots=True, kw_only=True)
class Connection:
    """One accepted connection. `client` is the client that it speaks for, `proxy` the peer that named it."""

    session_id: str
    """Random and new for every connection, so that it tells two connections of one client apart."""
    listener: str
    client: Address
    proxy: Address | None
    """None for a client that came directly."""
    destination: Address
    """The address that the client connected to, if the proxy names it."""
    header: Header | None
    address_source: AddressSource
    tls: TlsInfo | None = None

    @property
    def is_proxy_itself(self) -> bool:
        """Whether the header names nobody (LOCAL, UNKNOWN, UNSPEC), as in a proxy's health check (R10, R23, R26)."""
        return self.header is not None and self.header.source is None

    @property
    def proxy_version(self) -> int:
        """The header's version, 1 or 2; 0 without a header."""
        return 0 if self.header is None else self.header.version


def connection_of(transport: Any, listener: str, header: Header | None, proxy_peername: Any) -> Connection:
    """Describe a connection that a Listener has accepted.

    `transport` gives ``peername`` and ``sockname`` as the client sees the connection.
    """
    named = header is not None and header.source is not None
    return Connection(
        session_id=str(uuid.uuid4()),
        listener=listener,
        client=address_text(transport.get_extra_info("peername")),
        proxy=None if header is None else address_text(proxy_peername),
        destination=address_text(transport.get_extra_info("sockname")),
        header=header,
        address_source="header" if named else "peer",
        tls=None if header is None else _tls_of_header(header),
    )


def connection_of_arrival(arrival: Arrival) -> Connection:
    """Describe a connection that the gateway serves."""
    header, peer, forwarded = arrival.header, arrival.peername, arrival.forwarded
    source = None if header is None else header.source
    client = forwarded or (source if source is not None else peer)
    destination = None if header is None else header.destination
    tls = arrival.tls
    return Connection(
        session_id=arrival.session_id,
        listener=sys.intern(arrival.listener),
        client=address_text(client),
        proxy=None if header is None and forwarded is None else _common_host(*address_text(peer)),
        destination=_common(*address_text(arrival.sockname if destination is None else destination)),
        header=header,
        address_source="forwarded" if forwarded else "peer" if source is None else "header",
        tls=_tls_here(*tls, is_verified=arrival.tls_certificate is not None)
        if tls is not None
        else None
        if header is None
        else _tls_of_header(header),
    )


def _common_host(host: str, port: int) -> Address:
    """An address whose host many connections share, as one text: 10,000 sessions hold it as long as they last."""
    return (sys.intern(host), port)


@functools.lru_cache(maxsize=256)
def _common(host: str, port: int) -> Address:
    """An address that many connections share, as one object."""
    return (host, port)


def address_text(name: Any) -> Address:
    """Return a socket's name as an Address, whatever its family."""
    if isinstance(name, tuple) and len(name) > 1:
        host, port = str(name[0]), int(name[1])
        # Only an IPv6 address can be written in more than one way.
        parsed = parse_address(host) if ":" in host else None
        return (str(parsed) if parsed else host, port)
    if isinstance(name, bytes):
        return (name.decode("utf-8", "backslashreplace"), 0)
    return (str(name or ""), 0)


def _tls_here(
    version: str, cipher: str, sni: str | None, common_name: str | None, *, is_verified: bool
) -> TlsInfo:
    return TlsInfo(
        ended_at="broker",
        version=version,
        cipher=cipher,
        sni=sni,
        client_cert_cn=common_name,
        client_cert_verified=is_verified,
    )


def _tls_of_header(header: Header) -> TlsInfo | None:
    ssl = header.ssl
    if ssl is None or not ssl.client_tls:
        return None
    return TlsInfo(
        ended_at="proxy",
        version=ssl.version,
        cipher=ssl.cipher,
        sni=header.authority,
        client_cert_cn=ssl.cn,
        client_cert_verified=ssl.verified,
    )
