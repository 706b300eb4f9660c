"""The servers behind the front, and who knows the passwords."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_serializer, model_validator
from typing_extensions import Self

from ..model.networks import parse_address
from .section import Section
from .values import Bool, Count, Duration, Positive, parse_duration, parse_int

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


def _node_number(value: Any) -> int:
    number = parse_int(value)
    if not 1 <= number <= _MOST_NODES:
        raise ValueError(f"must be a node's number, from 1 to {_MOST_NODES}")
    return number


def _address_of_node(value: Any) -> str:
    """Take `host:port` where other machines can reach it."""
    text = value.strip() if isinstance(value, str) else ""
    host, colon, digits = text.rpartition(":")
    address = parse_address(host.removeprefix("[").removesuffix("]"))
    is_ipv6 = address is not None and address.version == 6  # noqa: PLR2004 (the version of IP)
    if not colon or not host or is_ipv6 != host.startswith("["):
        raise ValueError('must be "host:port" or "[IPv6]:port"')
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) < _LAST_PORT:
        raise ValueError(f"must have a port from 1 to {_LAST_PORT - 1}: the one behind it is used too")
    if address is None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", host):
        raise ValueError("must have a host's name or address")
    if address is not None and (address.is_unspecified or address.is_multicast):
        raise ValueError(
            f"must name the address at which the others reach the node, on a private network, and not {host}:"
            " whoever reaches the port rules the cluster"
        )
    return text


_MOST_NODES = 65535
_LAST_PORT = 65535
_NodeNumber = Annotated[int, PlainValidator(_node_number)]


class ClusterConfig(Section):
    """Which node of a cluster this process is, and where all nodes are. The port behind each is used too."""

    node: _NodeNumber
    peers: dict[_NodeNumber, Annotated[str, PlainValidator(_address_of_node)]]

    @model_validator(mode="after")
    def _is_one_of_several(self) -> Self:
        there_are = ", ".join(map(str, self.peers)) or "none"
        if len(self.peers) < _FEWEST_NODES:
            raise ValueError(
                f"must name all nodes under peers, at least {_FEWEST_NODES}, this one too (got {there_are})"
            )
        if self.node not in self.peers:
            raise ValueError(f"must have node {self.node} under peers, as every node (got {there_are})")
        taken: dict[str, int] = {}
        for node, address in self.peers.items():
            host, _, port = address.lower().rpartition(":")
            for used in (f"{host}:{port}", f"{host}:{int(port) + 1}"):
                if taken.setdefault(used, node) != node:
                    raise ValueError(
                        f"has {used} twice under peers, of nodes {taken[used]} and {node}:"
                        " each node has its port and the one behind it"
                    )
        return self


_FEWEST_NODES = 2


def _zero_is_none(value: Any) -> Any:
    return None if value is not None and parse_duration(value) == 0 else value


class EmbeddedConfig(Section):
    """The broker in this process. `docs/embedded.md` explains each key."""

    max_inflight: Annotated[Positive, Field(le=65535)] = 32
    max_queued: Positive = 1000
    max_retained: Count = 0
    session_expiry: Duration = 7 * 86400.0
    shared_subscriptions: Bool = True
    persistence: Annotated[str, Field(min_length=1)] | None = None
    cluster: ClusterConfig | None = None
    sys_interval: Annotated[Duration | None, BeforeValidator(_zero_is_none)] = None


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
