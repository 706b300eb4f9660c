"""What the gate tells everybody who records: who was refused, who came, who went, who was denied a topic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from .connection import Connection
    from .sessions import SessionRecord

Action = Literal["publish", "subscribe"]


class Refuse(Exception):
    """Ends a login. `reason` is a code of `reasons.REASONS`, `detail` a text for the log."""

    def __init__(self, reason: str, detail: str = "", *, client_id: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.client_id = client_id
        """As far as a CONNECT that cannot be served still shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedClient:
    """A connection that ended before its CONNACK said welcome."""

    connection: Connection
    reason: str
    detail: str = ""
    client_id: str = ""
    username: str | None = None
    password_provided: bool = False
    quiet: bool = False
    """Nobody's attempt: a health check, or a trusted peer that closed before its first byte. Counted only."""
    seconds: float = field(default=0.0)
    """From the accepted connection to its end."""


class Observer(Protocol):
    """Told by the gate, in the event loop; it must return at once and must not raise."""

    def refused(self, refused: RefusedClient) -> None:
        """A connection ended without being let in."""

    def connected(self, session: SessionRecord) -> None:
        """CONNACK 0 is about to be sent."""

    def disconnected(self, session: SessionRecord) -> None:
        """The connection of `session` is over; `session.disconnect_reason` says why."""

    def denied(self, session: SessionRecord, action: Action, topic: str) -> None:
        """The operator's topic plugins said no to a client that is let in."""

    def asked(self, seconds: float) -> None:
        """The operator's auth plugins took so long over a login, whatever they said."""


class Operated(Protocol):
    """Told when an operator has done something, in the event loop; it must return at once and must not raise."""

    def __call__(
        self,
        event: Literal["session.disconnect", "session.remove", "unauthorized.delete"],
        *,
        by: str,
        client_id: str | None = None,
        session: SessionRecord | None = None,
        **extra: Any,
    ) -> None:
        """`by` is whoever did it; `extra` are fields of the audit line, named as in JSON."""


def nobody_told(event: str, **said: Any) -> None:
    """An Operated that nobody listens to."""


class Silent:
    """An Observer that nobody listens to."""

    def refused(self, refused: RefusedClient) -> None:
        """See Observer."""

    def connected(self, session: SessionRecord) -> None:
        """See Observer."""

    def disconnected(self, session: SessionRecord) -> None:
        """See Observer."""

    def denied(self, session: SessionRecord, action: Action, topic: str) -> None:
        """See Observer."""

    def asked(self, seconds: float) -> None:
        """See Observer."""
