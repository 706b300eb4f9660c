"""The options of `_core.Gateway` for a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyproto_rs._core import Broker

    from .sections import LimitsConfig, MqttConfig
    from .upstream import UpstreamConfig

_MQTT = (
    *("tls_timeout", "ws_timeout", "connect_timeout", "auth_timeout", "packet_timeout", "send_timeout"),
    *("max_connect_size", "max_packet_size", "max_send_buffer", "keepalive_factor"),
)

_KEEPALIVE = 30.0
"""Seconds of TCP keep-alive towards clients, where no server has one."""


def gateway_options(
    upstream: UpstreamConfig,
    mqtt: MqttConfig,
    limits: LimitsConfig,
    workers: int,
    *,
    secret: bytes | None = None,
    broker: Broker | None = None,
) -> dict[str, Any]:
    """Return the options. The keys have the same names on both sides. `secret` and `broker` are the embedded broker's."""
    servers = {key: getattr(upstream, key) for key in type(upstream).model_fields}
    servers["secret"] = secret
    if broker is not None:  # a build without it does not know the option
        servers["broker"] = broker
    servers["check"] = dict(upstream.check)
    servers["tls"] = None if upstream.tls is None else dict(upstream.tls)
    return {"workers": workers, "mqtt": _clients(mqtt, limits, upstream.keepalive), "upstream": servers}


def in_process_options(mqtt: MqttConfig, limits: LimitsConfig, workers: int) -> dict[str, Any]:
    """Return the options for amqtt in this process. It knows MQTT 3.1.1 alone, and checks no packet."""
    clients = _clients(mqtt, limits, _KEEPALIVE)
    return {
        "workers": workers,
        "mqtt": {**clients, "strict": True},
        "upstream": {"versions": ["3.1.1"]},
        "in_process": True,
    }


def _clients(mqtt: MqttConfig, limits: LimitsConfig, keepalive: float) -> dict[str, Any]:
    clients = {key: getattr(mqtt, key) for key in _MQTT}
    clients["keepalive"] = keepalive  # it holds towards servers and clients
    clients["publish"] = [(rate.count, rate.seconds) for rate in limits.publish]
    return clients
