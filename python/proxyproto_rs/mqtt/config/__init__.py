"""Configuration of the broker: one YAML file and TBMQ's variables. All errors are reported at once."""

from .broker import BrokerConfig, Loaded, load
from .errors import ConfigError, Problem
from .http import HttpConfig
from .listener import ForwardedConfig, ListenerConfig, ProxyConfig, TlsConfig, WebSocketConfig
from .sections import (
    AccessRule,
    AmqttConfig,
    AuditConfig,
    AutoBlockConfig,
    BlockedConfig,
    IdentityConfig,
    LimitsConfig,
    LogConfig,
    MqttConfig,
    UnauthorizedConfig,
)
from .upstream import AuthConfig, BackendConfig, CheckConfig, HttpAuthConfig, UpstreamConfig
from .values import Bind, Rate

__all__ = [
    "AccessRule",
    "AmqttConfig",
    "AuditConfig",
    "AuthConfig",
    "AutoBlockConfig",
    "BackendConfig",
    "Bind",
    "BlockedConfig",
    "BrokerConfig",
    "CheckConfig",
    "ConfigError",
    "ForwardedConfig",
    "HttpAuthConfig",
    "HttpConfig",
    "IdentityConfig",
    "LimitsConfig",
    "ListenerConfig",
    "Loaded",
    "LogConfig",
    "MqttConfig",
    "Problem",
    "ProxyConfig",
    "Rate",
    "TlsConfig",
    "UnauthorizedConfig",
    "UpstreamConfig",
    "WebSocketConfig",
    "load",
]
