"""What is known of one connection before MQTT begins: whose it is, through whom it came, and over what TLS.

Plugins find it in ``session.attributes["proxyproto_rs.connection"]``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .networks import parse_address

if TYPE_CHECKING:
    from proxyproto_rs import Header

Address = tuple[str, int]
"""Host in canonical text (an IPv4-mapped address as IPv4, no zone) and port; a UNIX path has port 0."""

AddressSource = Literal["header", "forwarded", "peer"]


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """The TLS of a connection, as the proxy says or as our own handshake found it."""

    ended_at: Literal["proxy", "broker"]
    version: str | None
    cipher: str | None
    sni: str | None
    client_cert_cn: str | None
    client_cert_verified: bool


@dataclass(slots=True, kw_only=True)
class Connection:
    """One accepted connection. `client` is whom it speaks for, `proxy` the peer that said so."""

    session_id: str
    """Random, new for every connection: it tells a client's connection from its successor."""
    listener: str
    client: Address
    proxy: Address | None
    """None for a client that came directly."""
    destination: Address
    """What the client connected to, as far as the proxy says."""
    header: Header | None
    address_source: AddressSource
    tls: TlsInfo | None = None

    @property
    def is_proxy_itself(self) -> bool:
        """The header names nobody (LOCAL, UNKNOWN, UNSPEC): a health check of the proxy (R10, R23, R26)."""
        return self.header is not None and self.header.source is None

    @property
    def proxy_version(self) -> int:
        """1 or 2; 0 without a header."""
        return 0 if self.header is None else self.header.version


def connection_of(transport: Any, listener: str, header: Header | None, proxy_peername: Any) -> Connection:
    """Describe what a Listener handed over.

    `transport` answers ``peername`` and ``sockname`` with the client's view of the connection.
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


def address_text(name: Any) -> Address:
    """A socket's name as an Address, whatever its family."""
    if isinstance(name, tuple) and len(name) > 1:
        host, port = str(name[0]), int(name[1])
        # Only IPv6 has more than one way to write an address.
        parsed = parse_address(host) if ":" in host else None
        return (str(parsed) if parsed else host, port)
    if isinstance(name, bytes):
        return (name.decode("utf-8", "backslashreplace"), 0)
    return (str(name or ""), 0)


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
