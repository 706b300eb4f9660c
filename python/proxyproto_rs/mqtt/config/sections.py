"""The sections of the file apart from the listeners. Each default is written here and nowhere else."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from ..model.patterns import compile_pattern
from .section import Section
from .values import (
    Bool,
    Count,
    Duration,
    Networks,
    Positive,
    Rates,
    Size,
    parse_float,
)


def _secret(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Globs = tuple[str, ...]


class MqttConfig(Section):
    """Deadlines in seconds and sizes in bytes, for a client from its first byte to its last."""

    tls_timeout: Duration = 10.0
    ws_timeout: Duration = 10.0
    connect_timeout: Duration = 10.0
    auth_timeout: Duration = 10.0
    packet_timeout: Duration = 30.0
    send_timeout: Duration = 30.0
    drain: Duration = 10.0
    max_connect_size: Size = 16384
    max_packet_size: Size = 65536
    max_send_buffer: Size = 1024 * 1024
    keepalive_factor: Annotated[float, BeforeValidator(parse_float), Field(ge=1)] = 1.5
    client_id_owner: Literal["refuse", "any"] = "refuse"


class IdentityConfig(Section):
    """How a certificate names the client."""

    source: Literal["none", "header", "tls"] = "none"
    use_as: Literal["username", "client_id", "none"] = "username"
    allow_pattern: str | None = None

    @field_validator("allow_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            compile_pattern(pattern)
        return pattern


class AccessRule(Section):
    """One line of `access`. A key that is left out matches everybody."""

    users: Globs | None = None
    clients: Globs | None = None
    listeners: Globs | None = None
    networks: Networks | None = None
    action: Literal["allow", "deny"]


class LimitsConfig(Section):
    """Limits over all listeners. 0 means no limit."""

    max_sessions: Count = 0
    max_sessions_per_client: Count = 0
    max_unauthenticated: Count = 1024
    logins_at_once: Positive = 16
    publish: Rates = ()


class AutoBlockConfig(Section):
    """When wrong logins ban the address that they come from."""

    enabled: Bool = False
    max_failures: Positive = 10
    window: Duration = 60.0
    block_for: Duration = 60.0
    escalate: Annotated[float, BeforeValidator(parse_float), Field(ge=1)] = 2.0
    max_block: Duration = 3600.0
    forget: Duration = 86400.0
    ipv6_prefix: Annotated[Positive, Field(le=128)] = 64
    direct: Bool = False
    never: Networks = ()

    @field_validator("escalate")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("must be a number")
        return value


class UnauthorizedConfig(Section):
    """What the broker keeps about refused clients."""

    enabled: Bool = True
    ttl: Duration = 259200.0
    max_rows: Positive = 100_000


class BlockedConfig(Section):
    """How long an expired block stays visible."""

    cleanup_ttl: Duration = 604800.0


class AuditConfig(Section):
    """The audit log. Without a file there is none."""

    file: str | None = None


class LogConfig(Section):
    """How the process logs to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class AmqttConfig(Section):
    """What is passed to amqtt unchanged."""

    session_expiry_interval: Count = 604800
    plugins: dict[str, dict[str, Any] | None] = Field(default_factory=dict)

    def plugin_options(self) -> dict[str, dict[str, Any]]:
        """Return the options of each plugin by its class path. A plugin without options has an empty mapping."""
        return {path: dict(options or {}) for path, options in self.plugins.items()}
