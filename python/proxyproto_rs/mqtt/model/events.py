"""What the gate reports: clients that were refused, came, went, or were denied a topic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .connection import Connection
from .login import MqttVersion
from .session_record import SessionRecord

Action = Literal["publish", "subscribe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedClient:
    """A connection that ended before a CONNACK let it in."""

    connection: Connection
    reason: str
    detail: str = ""
    client_id: str = ""
    username: str | None = None
    password_provided: bool = False
    mqtt_version: MqttVersion | None = None
    """None if no CONNECT was read."""
    upstream: str | None = None
    """The address of the server that has refused it."""
    quiet: bool = False
    """It is no client's attempt, but a health check, or a trusted peer that closed before its first byte.

    It is only counted.
    """
    seconds: float = field(default=0.0)
    """The time from the accepted connection to its end."""


class Observer(Protocol):
    """Listens to the gate. The event loop calls the methods; they must return at once and must not raise."""

    def refused(self, refused: RefusedClient) -> None:
        """A connection ended without having been let in."""

    def connected(self, session: SessionRecord) -> None:
        """CONNACK 0 is about to be sent."""

    def disconnected(self, session: SessionRecord) -> None:
        """The connection of `session` is over. `session.disconnect_reason` says why."""

    def denied(self, session: SessionRecord, action: Action, topic: str, times: int = 1) -> None:
        """The rules or the operator's plugins denied a topic to a client, so many times."""

    def asked(self, seconds: float) -> None:
        """The operator's auth plugins took this long over a login, whatever they answered."""


class Operated(Protocol):
    """Listens to operators' actions. The event loop calls it; it must return at once and must not raise."""

    def __call__(
        self,
        event: Literal["session.disconnect", "session.remove", "unauthorized.delete"],
        *,
        by: str,
        client_id: str | None = None,
        session: SessionRecord | None = None,
        **extra: Any,
    ) -> None:
        """`by` names the operator. `extra` holds fields of the audit line, named as in JSON."""


def nobody_told(event: str, **said: Any) -> None:
    """Do nothing, as an Operated."""


class Silent:
    """An Observer that does nothing."""

    def refused(self, refused: RefusedClient) -> None:
        """Do nothing."""

    def connected(self, session: SessionRecord) -> None:
        """Do nothing."""

    def disconnected(self, session: SessionRecord) -> None:
        """Do nothing."""

    def denied(self, session: SessionRecord, action: Action, topic: str, times: int = 1) -> None:
        """Do nothing."""

    def asked(self, seconds: float) -> None:
        """Do nothing."""
