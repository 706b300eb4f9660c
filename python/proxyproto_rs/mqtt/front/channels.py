"""What the gateway's listeners speak besides MQTT: TLS and WebSocket, and what a handshake has shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxyproto_rs import AddressSet
from proxyproto_rs._core import Channel

if TYPE_CHECKING:
    from proxyproto_rs._core import Arrival

    from ..config import ListenerConfig, TlsConfig, WebSocketConfig

_FOR_OPENSSL = frozenset({"key_password", "key_password_file"})


def channel_of(config: ListenerConfig, max_packet_size: int, blocked: AddressSet) -> Channel | None:
    """Build what stands in front of a listener's MQTT; None for a tcp listener.

    `blocked` holds the addresses that may not come; it is asked about those from X-Forwarded-For.

    Raises:
        ValueError: A file cannot be used, or an option is OpenSSL's alone. The text begins with the option's name.
    """
    tls = _tls(config.tls) if config.tls_here and config.tls is not None else None
    websocket = None
    if config.websocket and config.ws is not None:
        websocket = _websocket(config.ws, config, max_packet_size, blocked)
    return Channel(tls=tls, websocket=websocket) if tls is not None or websocket is not None else None


def _tls(config: TlsConfig) -> dict[str, Any]:
    options = {key: getattr(config, key) for key in type(config).model_fields if key not in _FOR_OPENSSL}
    options["certificates"] = [dict(files) for files in config.certificates]
    return options


def _websocket(
    config: WebSocketConfig, listener: ListenerConfig, max_packet_size: int, blocked: AddressSet
) -> dict[str, Any]:
    forwarded = None
    if config.forwarded is not None:
        allow, deny = listener.proxy.allow, listener.proxy.deny
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
    """The TLS that the gateway ended. It has the methods of an ssl.SSLObject that an identity rule asks."""

    __slots__ = ("_arrival",)

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def getpeercert(self) -> dict[str, Any]:
        """Return the common names of a certificate that was verified, in the form of ssl.SSLObject."""
        tls = self._arrival.tls
        if tls is None or tls[3] is None:
            return {}
        names = [tls[3], ""] if self._arrival.tls_has_more_names else [tls[3]]
        return {"subject": tuple((("commonName", name),) for name in names)}
