"""BrokerConfig: the whole file as one frozen object."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, PrivateAttr, field_validator, model_validator
from typing_extensions import Self

from .inheritance import resolve
from .listener import ListenerConfig, ProxyConfig, TlsConfig
from .loaded_from import LoadedFrom
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
from .values import Mode

_logger = logging.getLogger("proxyproto_rs.mqtt")


class BrokerConfig(Section):
    """All effective values of a broker. The keywords have the shape of the file.

    The listeners have inherited already: `listeners[NAME]` holds its values from `proxy`, `tls_defaults`,
    `identity` and `proxy_protocol`. The global sections stay for display.
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

    _loaded_from: LoadedFrom | None = PrivateAttr(None)

    @property
    def loaded_from(self) -> LoadedFrom | None:
        """Where `load` has read it, for a reload. None if it was made in code."""
        return self._loaded_from

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy it, as pydantic does; a copy with other values does not come from a file."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._loaded_from = None
        return copy

    def __eq__(self, other: object) -> bool:
        """Whether the values are the same, wherever they were read from."""
        return isinstance(other, BrokerConfig) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # its listeners are a dict

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str | None) -> str | None:
        if store is not None and not (store.startswith("sqlite:") and len(store) > len("sqlite:")):
            raise ValueError("must be sqlite:PATH or sqlite::memory:")
        return store

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, tree: Any) -> Any:
        return resolve(tree) if isinstance(tree, Mapping) else tree

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        environ: Mapping[str, str] | None = None,
        allow_anonymous: bool = False,
    ) -> BrokerConfig:
        """Read a YAML file and TBMQ's variables (from `environ`, or else from the process's environment).

        A variable that overrides the file is logged at WARNING. Without a file TBMQ's defaults hold.
        `allow_anonymous` lets everybody log in if the configuration names no auth plugin.
        It remembers where the configuration came from, for `BrokerService.reload()`.

        Raises:
            ConfigError: all that is wrong, one line for each: file, line, key, what it must be, what it is.
        """
        from .loading import load

        loaded = load(path, environ=environ, allow_anonymous=allow_anonymous)
        for warning in loaded.warnings:
            _logger.warning("%s", warning)
        return loaded.config
