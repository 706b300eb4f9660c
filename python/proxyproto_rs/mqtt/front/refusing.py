"""Tells clients' attempts from health checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from ..model.connection import Connection
    from ..model.reasons import Refuse


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
