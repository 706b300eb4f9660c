"""What is known here of the sessions that servers keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...tables.sessions import Sessions


class KeptUpstream:
    """Implements `sessions.Kept`, from the records alone: nothing here reads SUBSCRIBE packets."""

    sessions: Sessions
    """The registry. It is set once it has been made."""

    def has_session(self, client_id: str) -> bool:
        """Whether the client is connected, or its session is kept and has not expired by the client's own word."""
        record = self.sessions.record(client_id)
        if record is None:
            return False
        if record.connected:
            return True
        return record.is_kept and self.sessions.clock() * 1000 < record.forgotten_at

    def subscriptions(self, client_id: str) -> Mapping[str, int]:  # noqa: ARG002
        """Return none: the servers have them."""
        return {}

    async def forget(self, client_id: str) -> None:
        """Raise ValueError: only the server can forget its session."""
        raise ValueError(f"the session of client {client_id!r} is kept by the server behind: remove it there")
