"""What is known of one client id and its connection."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .connection import Connection
from .login import MqttVersion
from .paging import camel_case

FORGOTTEN_AFTER = 7 * 24 * 3_600_000
"""Milliseconds for which the record of a session without an expiry is kept. Servers do not tell when they drop one."""


class ConnectedClient(NamedTuple):
    """The names of a client that is connected."""

    client_id: str
    username: str | None
    address: str


@dataclass(slots=True)
class Traffic:
    """The traffic of a connection. These are plain integers, so counting costs one addition."""

    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    last_received: float = 0.0
    """Loop time of the last bytes from the client."""

    @property
    def last_seen(self) -> float:
        """When the last byte came from the client, in seconds since 1970."""
        return time.time() - time.monotonic() + self.last_received


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTraffic:
    """The traffic of a connection as it was when it was stored."""

    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    last_seen: float


class Transferred(Protocol):
    """What has gone over a connection."""

    @property
    def bytes_in(self) -> int:
        """Bytes from the client."""

    @property
    def bytes_out(self) -> int:
        """Bytes to the client."""

    @property
    def packets_in(self) -> int:
        """Packets from the client."""

    @property
    def packets_out(self) -> int:
        """Packets to the client."""

    @property
    def last_seen(self) -> float:
        """When the last byte came from the client, in seconds since 1970."""


@dataclass(slots=True, kw_only=True)
class SessionRecord:
    """One client id and its present or last connection. Times are milliseconds since 1970; 0 means never."""

    client_id: str
    username: str | None
    connection: Connection
    traffic: Transferred
    node_id: str
    clean_start: bool
    keep_alive_seconds: int
    session_expiry_interval: int
    """How long the session is kept without a connection, in seconds. 0 if it ends with the connection, or never ends."""
    connected: bool = True
    connected_at: int = 0
    login_seconds: float = 0.0
    """The time from the accepted connection to the CONNACK."""
    disconnected_at: int = 0
    disconnect_reason: str | None = None
    detail: str = ""
    mqtt_version: MqttVersion = "MQTT_3_1_1"
    is_kept: bool = True
    """Whether the session outlives the connection."""
    upstream: str | None = None
    """The address of the server that carries the session; None if this process does."""
    upstream_connect_seconds: float | None = None
    """The time from connecting to that server until its CONNACK."""
    subscriptions_count: int = 0
    """The number when it was last read. `Sessions.find` and `get` refresh it."""

    @property
    def session_id(self) -> str:
        """The session id of the connection."""
        return self.connection.session_id

    @property
    def session_end_ts(self) -> int:
        """When the kept session will be forgotten; 0 while the client is connected, or if it never will."""
        if self.connected or not self.session_expiry_interval:
            return 0
        return self.disconnected_at + self.session_expiry_interval * 1000

    @property
    def forgotten_at(self) -> int:
        """When a session that a server keeps counts as gone; 0 while the client is connected."""
        if self.connected:
            return 0
        return self.session_end_ts or self.disconnected_at + FORGOTTEN_AFTER

    @property
    def last_seen(self) -> int:
        """When the last byte came from the client."""
        return int(self.traffic.last_seen * 1000)

    @property
    def upstream_connect_ms(self) -> float | None:
        """`upstream_connect_seconds` in milliseconds."""
        seconds = self.upstream_connect_seconds
        return None if seconds is None else round(seconds * 1000, 3)

    def to_json(self) -> dict[str, Any]:
        """Return the row for JSON, TBMQ's names first, then ours."""
        connection, traffic = self.connection, self.traffic
        proxy = connection.proxy or (None, None)
        header, tls = connection.header, connection.tls
        return {
            "clientId": self.client_id,
            "sessionId": connection.session_id,
            "connectionState": "CONNECTED" if self.connected else "DISCONNECTED",
            "clientIpAdr": connection.client[0],
            "clientType": "DEVICE",
            "nodeId": self.node_id,
            "subscriptionsCount": self.subscriptions_count,
            "connectedAt": self.connected_at,
            "disconnectedAt": self.disconnected_at,
            "cleanStart": self.clean_start,
            "keepAliveSeconds": self.keep_alive_seconds,
            "sessionExpiryInterval": self.session_expiry_interval,
            "sessionEndTs": self.session_end_ts,
            "clientPort": connection.client[1],
            "username": self.username,
            "mqttVersion": self.mqtt_version,
            "upstream": self.upstream,
            "upstreamConnectMs": self.upstream_connect_ms,
            "listener": connection.listener,
            "proxyIpAdr": proxy[0],
            "proxyPort": proxy[1],
            "proxyVersion": connection.proxy_version,
            "destinationIpAdr": connection.destination[0],
            "destinationPort": connection.destination[1],
            "addressSource": connection.address_source,
            "vpcEndpointId": None if header is None else header.aws_vpc_endpoint_id,
            "disconnectReason": self.disconnect_reason,
            "bytesIn": traffic.bytes_in,
            "bytesOut": traffic.bytes_out,
            "packetsIn": traffic.packets_in,
            "packetsOut": traffic.packets_out,
            "lastSeen": self.last_seen,
            "tls": None
            if tls is None
            else {camel_case(name): getattr(tls, name) for name in tls.__dataclass_fields__},
        }
