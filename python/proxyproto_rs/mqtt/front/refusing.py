"""Describes a refused client, and tells clients' attempts from health checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.events import RefusedClient
from ..model.reasons import Refuse

if TYPE_CHECKING:
    from collections.abc import Container

    from ..model.connection import Connection
    from .client import Client


def refused_client(client: Client, refused: Refuse) -> RefusedClient:
    """Describe a client at the end of its login, with everything known about it."""
    connect = client.connect if client.greeted and hasattr(client, "connect") else None
    return RefusedClient(
        connection=client.connection,
        reason=refused.reason,
        detail=refused.detail,
        client_id=refused.client_id if connect is None else connect.client_id,
        username=client.username,
        password_provided=connect is not None and connect.password is not None,
        mqtt_version=None if connect is None else connect.mqtt_version,
        quiet=is_nobodys(
            client.connection, refused, client.door.trusted, silent=not client.wire.traffic.bytes_in
        ),
        seconds=client.age(),
    )


def is_nobodys(connection: Connection, refused: Refuse, trusted: Container[str], *, silent: bool) -> bool:
    """Whether this was a health check: a header that names nobody, or a proxy that closed without a byte (`silent`)."""
    if connection.is_proxy_itself:
        return True
    said_nothing = (refused.reason == "closed-early" and silent) or (
        refused.reason == "tls-failed" and refused.detail == "closed"
    )
    if not said_nothing:
        return False
    # The version 1 header of HAProxy's checks names the proxy itself as the client.
    host = connection.client[0]
    return host in trusted or (connection.proxy is not None and connection.proxy[0] == host)
