"""What the gateway's listeners speak besides MQTT: TLS and WebSocket, and what a handshake has shown."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from proxyproto_rs import AddressSet
from proxyproto_rs._core import Channel

from .openssl import Openssl
from .tls import server_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxyproto_rs import SslInfo
    from proxyproto_rs._core import Arrival

    from ..config import ListenerConfig, TlsConfig, WebSocketConfig
    from ..model.networks import IPNetwork

_FOR_OPENSSL = frozenset({"key_password", "key_password_file"})


def channel_of(config: ListenerConfig, max_packet_size: int, blocked: AddressSet) -> Channel | None:
    """Build what stands in front of a listener's MQTT; None for a tcp listener.

    `blocked` holds the addresses that may not come; it is asked about those from X-Forwarded-For.

    Raises:
        ValueError: A file or an option cannot be used. The text begins with the option's name.
    """
    return channel(
        config.tls if config.tls_here else None,
        config.ws if config.websocket else None,
        max_packet_size,
        allow=config.proxy.allow,
        deny=config.proxy.deny,
        blocked=blocked,
    )


def channel(
    tls: TlsConfig | ssl.SSLContext | None,
    websocket: WebSocketConfig | None,
    max_packet_size: int,
    *,
    allow: Sequence[IPNetwork] = (),
    deny: Sequence[IPNetwork] = (),
    blocked: AddressSet | None = None,
) -> Channel | None:
    """Build what stands in front of MQTT; None without TLS and WebSocket.

    `allow`, `deny` and `blocked` are for addresses from X-Forwarded-For. Raises ValueError as `channel_of` does.
    """
    if tls is None and websocket is None:
        return None
    return Channel(
        tls=None if tls is None else _tls(tls),
        websocket=None
        if websocket is None
        else _websocket(
            websocket, max_packet_size, allow, deny, AddressSet() if blocked is None else blocked
        ),
    )


def _tls(config: TlsConfig | ssl.SSLContext) -> dict[str, Any] | Openssl:
    if isinstance(config, ssl.SSLContext):
        return Openssl(config)
    if config.key_password is not None or config.key_password_file is not None:
        # rustls reads no encrypted key.
        return Openssl(server_context(config))
    options = {key: getattr(config, key) for key in type(config).model_fields if key not in _FOR_OPENSSL}
    options["certificates"] = [dict(files) for files in config.certificates]
    return options


def _websocket(
    config: WebSocketConfig,
    max_packet_size: int,
    allow: Sequence[IPNetwork],
    deny: Sequence[IPNetwork],
    blocked: AddressSet,
) -> dict[str, Any]:
    forwarded = None
    if config.forwarded is not None:
        forwarded = {
            "trusted": [str(network) for network in config.forwarded.trusted],
            "headers": config.forwarded.headers,
            "denied": [str(network) for network in deny],
            "blocked": blocked,
            "allowed": [str(network) for network in allow] if allow else None,
        }
    return {
        "path": config.path,
        "subprotocols": config.subprotocols,
        "origins": config.origins,
        "forwarded": forwarded,
        "max_message_size": max_packet_size,
    }


class ArrivalTls:
    """The TLS that the gateway ended. It has the methods of an ssl.SSLObject that identity rules and plugins use."""

    __slots__ = ("_arrival",)

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def version(self) -> str | None:
        """Return the TLS version, as ssl.SSLObject does."""
        tls = self._arrival.tls
        return None if tls is None else tls[0]

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher, as ssl.SSLObject does. The number of secret bits is not known and is 0."""
        tls = self._arrival.tls
        return None if tls is None else (tls[1], tls[0], 0)

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the certificate if it was verified: in DER, or a dict in the form of ssl.SSLObject with its common name.

        Of more common names the dict holds the first and an empty one, so that it is clear that there are more.
        """
        if binary_form:
            return self._arrival.tls_certificate
        tls = self._arrival.tls
        if tls is None or tls[3] is None:
            return {}
        names = [tls[3], ""] if self._arrival.tls_has_more_names else [tls[3]]
        return {"subject": tuple((("commonName", name),) for name in names)}


class ProxyTls:
    """TLS that a proxy ended. It has the same methods."""

    __slots__ = ("_info",)

    def __init__(self, info: SslInfo) -> None:
        self._info = info

    def version(self) -> str | None:
        """Return the TLS version, as ssl.SSLObject does."""
        return self._info.version

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher, as ssl.SSLObject does. The number of secret bits is not known and is 0."""
        return (self._info.cipher, self._info.version or "", 0) if self._info.cipher else None

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the certificate if the proxy verified and sent it. The dict form holds only the header's CN."""
        if not self._info.verified:
            return None if binary_form else {}
        if binary_form:
            return self._info.client_cert
        return {"subject": ((("commonName", self._info.cn),),)} if self._info.cn is not None else {}
