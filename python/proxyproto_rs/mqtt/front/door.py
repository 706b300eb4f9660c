"""The rules for the connections of one listener."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from proxyproto_rs._core import Channel

from ..config import IdentityConfig
from ..model.login import Login
from ..policy.identity import Identity

Check = Callable[[Login], None]
"""Raises Refuse if the client may not come in."""


@dataclass
class Door:
    """The rules of one listener. They may change while it is open, for clients that come afterwards."""

    name: str
    identity: Identity = field(default_factory=lambda: Identity(IdentityConfig()))
    trusted: Container[str] = ()
    """Peers that may close without a byte, as in a health check, and leave no trace."""
    check_address: Callable[[str], None] | None = None
    """Checks an address from X-Forwarded-For, which the acceptor has not checked. Raises Refuse."""
    channel: Channel | None = None
    """What the gateway puts in front of MQTT: TLS, WebSocket."""
