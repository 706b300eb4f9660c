"""The broker in this process, and who may use which topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .section import Section
from .upstream import UpstreamConfig
from .values import Bool, Networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sections import MqttConfig
    from .upstream import EmbeddedConfig


def _as_list(value: Any) -> Any:
    """Take one name for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
_Actions = Annotated[
    tuple[Literal["publish", "subscribe"], ...], BeforeValidator(_as_list), Field(min_length=1)
]


class AclRule(Section):
    """One line of `acl`. A key that is left out matches everybody, or everything."""

    users: Names | None = None
    clients: Names | None = None
    networks: Networks | None = None
    topics: Names | None = None
    actions: _Actions = ("publish", "subscribe")
    allow: Bool


def broker_options(embedded: EmbeddedConfig, mqtt: MqttConfig) -> dict[str, Any]:
    """Return the options of `_core.Broker`. The keys have the same names on both sides."""
    cluster = None if embedded.cluster is None else dict(embedded.cluster)
    return {**dict(embedded), "cluster": cluster, "max_packet_size": mqtt.max_packet_size}


def acl_rules(acl: Sequence[AclRule]) -> list[dict[str, Any]]:
    """Return the rules for `_core.Broker`."""
    return [
        {
            **dict(rule),
            "networks": None if rule.networks is None else [str(network) for network in rule.networks],
            "topics": rule.topics or (),
        }
        for rule in acl
    ]


def upstream_of(address: str) -> UpstreamConfig:
    """Return the embedded broker as the server that it is for the gateway."""
    return UpstreamConfig(servers=(address,), proxy_protocol="off")
