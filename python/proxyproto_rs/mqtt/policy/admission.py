"""Who may have a session: the limits, and who owns a client id.

The gate asks before the plugins, and again under the client id's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..model.reasons import Refuse

if TYPE_CHECKING:
    from ..config import LimitsConfig
    from ..model.login import Login
    from ..tables.sessions import Connected, Kept, Sessions


class Occupied(Protocol):
    """The sessions, as the limits count them."""

    @property
    def connected(self) -> int:
        """How many clients are connected."""

    def connected_from(self, address: str) -> int:
        """How many clients are connected from one address."""

    def client(self, client_id: str) -> Connected | None:
        """Return the connected client with that id."""


def check_owner(client: Login, sessions: Sessions, kept: Kept) -> None:
    """Raise Refuse (`access-denied`) if another user's session has the client id."""
    record = sessions.record(client.connect.client_id)
    if record is None or record.username == client.username:
        return
    if record.connected or kept.has_session(record.client_id):
        raise Refuse("access-denied", _NOT_THEIRS)


async def check_owner_elsewhere(client: Login, sessions: Sessions) -> None:
    """Do as `check_owner` does, for the sessions of other nodes that share the store."""
    if sessions.elsewhere is None or not client.connect.client_id:
        return
    owner = await sessions.elsewhere.owner_elsewhere(client.connect.client_id)
    if owner is not None and owner.username != client.username:
        raise Refuse("access-denied", _NOT_THEIRS)


def check_limits(client: Login, limits: LimitsConfig, sessions: Occupied) -> None:
    """Raise Refuse (`too-many-sessions`). A client that replaces its own connection does not count as a new one."""
    address = client.connection.client[0]
    old = sessions.client(client.connect.client_id)
    if limits.max_sessions and old is None and sessions.connected >= limits.max_sessions:
        raise Refuse("too-many-sessions", f"{sessions.connected} are connected")
    most = limits.max_sessions_per_client
    if most and (old is None or old.connection.client[0] != address):
        mine = sessions.connected_from(address)
        if mine >= most:
            raise Refuse("too-many-sessions", f"{mine} are connected from {address}")


_NOT_THEIRS = "the session of this client id belongs to another user"
