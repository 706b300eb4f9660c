"""BrokerConfig: the whole file as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from .inheritance import resolve
from .listener import ListenerConfig, Mode, ProxyConfig, TlsConfig
from .section import Section
from .sections import (
    AccessRule,
    AmqttConfig,
    AuditConfig,
    AutoBlockConfig,
    BlockedConfig,
    HttpConfig,
    IdentityConfig,
    LimitsConfig,
    LogConfig,
    MqttConfig,
    UnauthorizedConfig,
)


class BrokerConfig(Section):
    """Every effective value of a broker; keywords have the shape of the file.

    What a listener inherits (`proxy`, `tls_defaults`, `identity`, `proxy_protocol`) is already in
    `listeners[NAME]`; the global sections stay for display.
    """

    node_id: str = ""
    proxy_protocol: Mode = "off"
    proxy: ProxyConfig = ProxyConfig()
    listeners: dict[str, ListenerConfig] = Field(min_length=1)
    tls_defaults: TlsConfig = TlsConfig()
    mqtt: MqttConfig = MqttConfig()
    identity: IdentityConfig = IdentityConfig()
    access: tuple[AccessRule, ...] = ()
    limits: LimitsConfig = LimitsConfig()
    auto_block: AutoBlockConfig = AutoBlockConfig()
    unauthorized: UnauthorizedConfig = UnauthorizedConfig()
    blocked: BlockedConfig = BlockedConfig()
    store: str | None = None
    audit: AuditConfig = AuditConfig()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    amqtt: AmqttConfig = AmqttConfig()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, tree: Any) -> Any:
        return resolve(tree) if isinstance(tree, Mapping) else tree
