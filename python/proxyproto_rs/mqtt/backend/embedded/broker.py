"""The broker in this process: started, asked about its sessions, and what it has denied."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from proxyproto_rs._core import Broker

from ...config.embedded import acl_rules, broker_options
from ...model.connection import Connection
from ...model.session_record import SessionRecord, StoredTraffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...config import AclRule, BrokerConfig
    from ...model.login import MqttVersion


Denial: TypeAlias = "tuple[str, tuple[str, int] | None, Literal['publish', 'subscribe'], str, int]"
"""Client id, client, action, topic, and how often."""


class EmbeddedBroker:
    """Implements `sessions.Kept`. It runs until it is closed."""

    def __init__(self, broker: Broker) -> None:
        self.address: str = broker.address
        """Where the gateway connects to, as `host:port`."""
        self.secret: bytes = broker.secret
        """What the gateway shows to be let in."""
        self.core: Broker = broker
        """What the gateway reaches it by."""
        self._is_closed = False

    @classmethod
    async def start(cls, config: BrokerConfig) -> EmbeddedBroker:
        """Start what `backend.embedded` and `acl` name. Raises OSError."""
        assert config.backend.embedded is not None
        options = broker_options(config.backend.embedded, config.mqtt)
        return cls(await asyncio.to_thread(Broker, options, acl_rules(config.acl)))

    def stats(self) -> Mapping[str, int]:
        """Return its numbers of now; none once it is closed."""
        return {} if self._is_closed else self.core.stats()

    async def close(self) -> None:
        """End all sessions. A second call does nothing."""
        self._is_closed = True
        await asyncio.to_thread(self.core.close)

    def change(self, acl: Sequence[AclRule]) -> None:
        """Put other rules in force, for clients that are connected too."""
        self.core.set_acl(acl_rules(acl))

    def take_denials(self) -> tuple[list[Denial], int]:
        """Return what was denied since the last call, and how many more denials there were."""
        denied, publishes, subscribes = self.core.take_denials()
        return denied, publishes + subscribes

    def take_unwritten(self) -> tuple[int, str] | None:
        """Return how often the disk has taken nothing since the last call, and why; None if it takes all."""
        return self.core.take_unwritten()

    def has_session(self, client_id: str) -> bool:
        """Whether there is a session on this node, of a client that is there or away."""
        return not self.core.is_elsewhere(client_id) and self.core.subscriptions(client_id) is not None

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """Return the topic filters of a session on this node and their QoS."""
        if self.core.is_elsewhere(client_id):
            return {}  # asking the other node may take seconds
        return self.core.subscriptions(client_id) or {}

    async def kept(self) -> list[SessionRecord]:
        """Return the sessions of clients that are away, as they were before a restart."""
        return [_record(**session) for session in await asyncio.to_thread(self.core.kept)]

    async def moved(self, ended: Sequence[SessionRecord]) -> frozenset[str]:
        """Return the session ids of those ended sessions whose clients are on another node of the cluster."""
        return frozenset(session.session_id for session in ended if self.core.is_elsewhere(session.client_id))

    async def forget(self, client_id: str) -> None:
        """Drop the session of a client that is away. Raises ValueError if it comes back at this moment."""
        if await asyncio.to_thread(self.core.forget, client_id) == "busy":
            raise ValueError(f"client {client_id!r} logs in at this moment: try again")


def _record(
    *,
    client_id: str,
    username: str | None,
    client: tuple[str, int] | None,
    version: int,
    clean_session: bool,
    keep_alive: int,
    session_expiry: int,
    connected_at: int,
    disconnected_at: int,
) -> SessionRecord:
    """Return what the broker still knows of a session. It does not know the listener, the proxy and the TLS."""
    connection = Connection(
        session_id=str(uuid.uuid4()),
        listener="",
        client=client or ("", 0),
        proxy=None,
        destination=("", 0),
        header=None,
        address_source="header",  # of the front to the broker
    )
    return SessionRecord(
        client_id=client_id,
        username=username,
        connection=connection,
        traffic=StoredTraffic(
            bytes_in=0, bytes_out=0, packets_in=0, packets_out=0, last_seen=disconnected_at / 1000
        ),
        node_id="",
        clean_start=clean_session,
        keep_alive_seconds=keep_alive,
        session_expiry_interval=session_expiry,
        connected=False,
        connected_at=connected_at,
        disconnected_at=disconnected_at,
        mqtt_version=_VERSIONS[version],
    )


_VERSIONS: dict[int, MqttVersion] = {3: "MQTT_3_1", 4: "MQTT_3_1_1", 5: "MQTT_5"}
