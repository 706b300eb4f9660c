"""Describes a refused client, and tells clients' attempts from health checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.events import RefusedClient
from ..model.reasons import Refuse

if TYPE_CHECKING:
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
        quiet=is_nobodys(client, refused),
        seconds=client.age(),
    )


def is_nobodys(client: Client, refused: Refuse) -> bool:
    """Whether this was a health check: a header that names nobody, or a proxy that closed without a byte."""
    connection = client.connection
    if connection.is_proxy_itself:
        return True
    silent = (refused.reason == "closed-early" and not client.wire.traffic.bytes_in) or (
        refused.reason == "tls-failed" and refused.detail == "closed"
    )
    if not silent:
        return False
    # The version 1 header of HAProxy's checks names the proxy itself as the client.
    host = connection.client[0]
    return host in client.door.trusted or (connection.proxy is not None and connection.proxy[0] == host)
