"""BrokerConfig: the whole file as one frozen object, and where it was loaded from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from .blocklists import BlocklistConfig
from .embedded import AclRule
from .errors import ConfigError, Path, Problem
from .http import HttpConfig
from .inheritance import resolve, written_at
from .listener import ListenerConfig, ProxyConfig, TlsConfig
from .loading import read, validate
from .rules import Behind, Served, check
from .section import Section
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
from .source import Source
from .upstream import Auth, AuthConfig, BackendConfig, EmbeddedConfig
from .values import Bool, Count, Mode, refuse_unknown_store

_logger = logging.getLogger("proxyproto_rs.mqtt")


class BrokerConfig(Section):
    """All effective values of a broker. The keywords have the shape of the file.

    The listeners have inherited already: `listeners[NAME]` holds its values from `proxy`, `tls_defaults`,
    `identity` and `proxy_protocol`. The global sections stay for display.
    """

    node_id: str = ""
    workers: Count = 0
    backend: BackendConfig = BackendConfig(embedded=EmbeddedConfig())
    auth: Auth = (AuthConfig(upstream=True),)
    forward_password: Bool = True
    acl: tuple[AclRule, ...] = ()
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
    blocklists: tuple[BlocklistConfig, ...] = ()
    store: str | None = None
    store_file: str | None = None
    audit: AuditConfig = AuditConfig()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    amqtt: AmqttConfig = AmqttConfig()

    _loaded_from: LoadedFrom | None = PrivateAttr(None)

    @property
    def loaded_from(self) -> LoadedFrom | None:
        """Where `load` has read it, for a reload. None if it was made in code."""
        return self._loaded_from

    @property
    def serves_http(self) -> bool:
        """Whether the section `http` is there, even if it is empty. Without it nothing is served."""
        return "http" in self.model_fields_set

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `http` out where it is not there, so that what is made of a dump serves no HTTP either."""
        tree: dict[str, Any] = dump(self)
        return tree if self.serves_http else {key: value for key, value in tree.items() if key != "http"}

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

    @field_validator("blocklists")
    @classmethod
    def _named_apart(cls, lists: tuple[BlocklistConfig, ...]) -> tuple[BlocklistConfig, ...]:
        names = [one.label for one in lists]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"has two lists with the name {name}: give one of them another name")
        return lists

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str | None) -> str | None:
        if store is not None:
            refuse_unknown_store(store)
        return store

    @field_validator("store_file")
    @classmethod
    def _one_store(cls, store_file: str | None, info: ValidationInfo) -> str | None:
        if store_file is not None and info.data.get("store") is not None:
            raise ValueError("must be left out beside store: keep one of the two")
        return store_file

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
        `allow_anonymous` stands for `auth: anonymous` where there is no `auth`. With amqtt it lets everybody log in if no
        auth plugin is configured.
        It remembers where the configuration came from, for `BrokerService.reload()`.

        Raises:
            ConfigError: all that is wrong, one line for each: file, line, key, what it must be, what it is.
        """
        loaded = load(path, environ=environ, allow_anonymous=allow_anonymous)
        for warning in loaded.warnings:
            _logger.warning("%s", warning)
        return loaded.config


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration, the origins of its values, and warnings to log before it is used."""

    config: BrokerConfig
    origins: Mapping[Path, str]
    warnings: tuple[str, ...]

    def origin(self, path: Path) -> str:
        """Where a value comes from: `broker.yaml:6`, a variable's name, or `default`."""
        return self.origins.get(path) or self.origins.get(written_at(path)) or "default"

    def located(self, error: ConfigError) -> ConfigError:
        """Add the places of the keys to errors that were found later, in a certificate or a plugin's options."""
        source = Source(origins=dict(self.origins))
        return ConfigError(
            problem if problem.origin else source.problem(problem.path, problem.text)
            for problem in error.problems
        )


@dataclass(frozen=True, slots=True)
class LoadedFrom:
    """The arguments of `BrokerConfig.load`."""

    path: str | os.PathLike[str] | None
    environ: Mapping[str, str] | None
    """None is the process's environment, as it is when it is read."""
    allow_anonymous: bool

    def load(self) -> Loaded:
        """Load it again, as it is now."""
        return load(self.path, environ=self.environ, allow_anonymous=self.allow_anonymous)


def load(
    path: str | os.PathLike[str] | None,
    *,
    environ: Mapping[str, str] | None = None,
    allow_anonymous: bool = False,
    usable: bool = True,
) -> Loaded:
    """Load as `BrokerConfig.load` does.

    With `usable` False it skips the rules that only a broker needs, to show the values.
    """
    overlay = read(path, os.environ if environ is None else environ, allow_anonymous=allow_anonymous)
    config = validate(BrokerConfig, overlay.source, usable=usable)
    if usable:
        config._loaded_from = LoadedFrom(path, environ, allow_anonymous)  # pydantic wants the underscore
    return Loaded(config, overlay.source.origins, tuple(overlay.warnings))


def refuse_unusable(config: BrokerConfig) -> None:
    """Check a configuration that was made in code. Raises ConfigError with every broken rule."""
    if config.loaded_from is not None:
        return  # `load` has checked it, and knows what the variables have closed
    findings = list(
        check(
            config.listeners.values(),
            config.amqtt,
            enumerate(config.access),
            config.listeners,
            behind=Behind(config.backend, config.auth, config.mqtt, config.acl),
            http=Served(config.http if config.serves_http else None, config.proxy),
        )
    )
    if findings:
        raise ConfigError(Problem("", finding.path, finding.text) for finding in findings)
