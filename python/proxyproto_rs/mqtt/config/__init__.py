"""Configuration of the broker: one YAML file and TBMQ's variables. All errors are reported at once."""

from .broker import BrokerConfig, Loaded, load
from .embedded import AclRule
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
from .upstream import (
    AuthConfig,
    BackendConfig,
    CheckConfig,
    EmbeddedConfig,
    HttpAuthConfig,
    UpstreamConfig,
)
from .values import Bind, Rate

__all__ = [
    "AccessRule",
    "AclRule",
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
    "EmbeddedConfig",
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
