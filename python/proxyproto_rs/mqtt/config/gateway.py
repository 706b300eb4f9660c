"""The options of `_core.Gateway` for a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sections import LimitsConfig, MqttConfig
    from .upstream import UpstreamConfig

_MQTT = (
    *("tls_timeout", "ws_timeout", "connect_timeout", "auth_timeout", "packet_timeout", "send_timeout"),
    *("max_connect_size", "max_packet_size", "max_send_buffer", "keepalive_factor"),
)


def gateway_options(
    upstream: UpstreamConfig,
    mqtt: MqttConfig,
    limits: LimitsConfig,
    workers: int,
    *,
    secret: bytes | None = None,
) -> dict[str, Any]:
    """Return the options. The keys have the same names on both sides. `secret` is the embedded broker's."""
    servers = {key: getattr(upstream, key) for key in type(upstream).model_fields}
    servers["secret"] = secret
    servers["check"] = dict(upstream.check)
    servers["tls"] = None if upstream.tls is None else dict(upstream.tls)
    clients = {key: getattr(mqtt, key) for key in _MQTT}
    clients["keepalive"] = upstream.keepalive  # it holds towards servers and clients
    clients["publish"] = [(rate.count, rate.seconds) for rate in limits.publish]
    return {"workers": workers, "mqtt": clients, "upstream": servers}
