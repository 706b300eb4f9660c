"""The servers behind the front, and who knows the passwords."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_serializer, model_validator
from typing_extensions import Self

from .section import Section
from .values import Bool, Count, Duration, Positive

Version = Literal["3.1", "3.1.1", "5"]


def _off(value: Any) -> Any:
    return "off" if value is False else value  # YAML reads a bare `off` as a boolean


def _number_as_text(value: Any) -> Any:
    """Take `3.1` and `5`, which YAML reads as numbers."""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class CheckConfig(Section):
    """How it is found out whether a server is there."""

    interval: Duration = 2.0
    fall: Positive = 3
    rise: Positive = 2
    kind: Literal["tcp", "mqtt"] = "tcp"
    client_id: str = "proxyproto-rs-check"


class UpstreamTlsConfig(Section):
    """TLS towards the servers."""

    cafile: str | None = None
    server_name: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    ciphers: str | None = None
    insecure: Bool = False


class UpstreamConfig(Section):
    """The servers, and how they are spoken to. `docs/gateway.md` explains each key."""

    servers: tuple[str, ...] = Field(min_length=1)
    balance: Literal["least-connections", "round-robin", "client-id"] = "least-connections"
    proxy_protocol: Annotated[Literal["v2", "v1", "off"], BeforeValidator(_off)] = "v2"
    checksum: Bool = False
    forward_certificate: Bool = False
    tls: UpstreamTlsConfig | None = None
    connect_timeout: Duration = 5.0
    max_connections: Count = 0
    check: CheckConfig = CheckConfig()
    keepalive: Duration = 30.0
    versions: tuple[Annotated[Version, BeforeValidator(_number_as_text)], ...] = ("3.1", "3.1.1", "5")


class EmbeddedConfig(Section):
    """The broker in this process. `docs/embedded.md` explains each key."""

    max_inflight: Annotated[Positive, Field(le=65535)] = 32
    max_queued: Positive = 1000
    max_retained: Count = 0
    session_expiry: Duration = 7 * 86400.0
    shared_subscriptions: Bool = True
    persistence: Annotated[str, Field(min_length=1)] | None = None


class BackendConfig(Section):
    """What carries the messages. Exactly one key is set."""

    embedded: EmbeddedConfig | None = None
    upstream: UpstreamConfig | None = None
    amqtt: Literal[True] | None = None
    """Its options are the file's section `amqtt`."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {"embedded": {"embedded": {}}, "amqtt": {"amqtt": True}}.get(str(value), value)

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if [self.embedded, self.upstream, self.amqtt].count(None) != 2:  # noqa: PLR2004
            raise ValueError("must name one backend: embedded, upstream or amqtt")
        return self

    @property
    def kind(self) -> Literal["embedded", "upstream", "amqtt"]:
        """The key that is set."""
        if self.embedded is not None:
            return "embedded"
        return "amqtt" if self.upstream is None else "upstream"


class HttpAuthConfig(Section):
    """A web service that is asked about each login."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]")]
    timeout: Duration = 3.0
    remember: Annotated[float, Field(ge=0)] = 300.0


class AuthConfig(Section):
    """One of those that are asked about a password. Exactly one key is set."""

    file: str | None = None
    http: HttpAuthConfig | None = None
    plugin: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    upstream: bool = False
    anonymous: bool = False

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {value: True} if value in ("upstream", "anonymous") else value

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("must be one of upstream, anonymous, file:, http:, plugin:")
        return self

    @model_serializer(mode="plain")
    def _shown(self) -> Any:
        (key,) = self.model_fields_set
        value = getattr(self, key)
        if value is True:
            return key
        return {key: value.model_dump() if isinstance(value, Section) else value}


def as_list(value: Any) -> Any:
    """Take `auth: upstream` for a list of one."""
    return (value,) if isinstance(value, str) else value


Auth = Annotated[tuple[AuthConfig, ...], BeforeValidator(as_list), Field(min_length=1)]
