"""What holds for the connections of one listener."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .config import IdentityConfig
from .identity import Identity
from .metrics import ListenerCounts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Container

    from .client import Client
    from .config import WebSocketConfig

    Check = Callable[[Client], None]
    """Raises Refuse where the client may not come in."""


@dataclass
class Door:
    """The rules of one listener. They may change while it is open: for those who come from then on."""

    name: str
    tls: ssl.SSLContext | None = None
    websocket: WebSocketConfig | None = None
    identity: Identity = field(default_factory=lambda: Identity(IdentityConfig()))
    trusted: Container[str] = ()
    """Peers whose health checks may close without a byte and leave no trace."""
    check_address: Check | None = None
    """For an address from X-Forwarded-For, which the acceptor has not seen. Raises Refuse."""
    unauthenticated: int = 0
    counts: ListenerCounts = field(default_factory=ListenerCounts)
