"""The interface behind the gate: a backend keeps the sessions, and carries the packets of admitted clients.

A backend sees only admitted clients and whole, checked packets. It knows nothing about PROXY headers, TLS,
WebSocket, blocks or limits. The gate knows nothing about how messages reach their subscribers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..model.events import Action
from ..model.login import Connect, Login


class Link(Login, Protocol):
    """One client, as the backend sees it."""

    connect: Connect
    certificate_is_login: bool
    """The certificate has proved the name, so no plugin is asked about the password."""
    ssl_object: Any
    """An object with `getpeercert`, `version` and `cipher`, as an ssl.SSLObject has them; None without TLS."""
    backend_state: Any
    """For the backend's own use from `authenticate` to `carry`. None before."""

    @property
    def patience(self) -> float:
        """How long its password may wait to be checked, in seconds."""

    reason: str | None
    """Why the connection ended, as in `end`; None while it is open."""

    @property
    def ended(self) -> bool:
        """Whether `pull` returns no more packets."""

    @property
    def max_send_buffer(self) -> int:
        """How many bytes may wait for a client that does not read."""

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""

    async def pull(self) -> bytes | None:
        """Return the next packet after CONNECT; None when the client has gone, sent DISCONNECT, or was ended.

        A cancelled pull has taken no packet.
        """

    def push(self, packet: bytes) -> None:
        """Send one packet. It is dropped if the connection is over. A client that does not read is ended."""

    async def drain(self) -> None:
        """Wait until the client has taken most of what was pushed, or has gone."""

    def welcome(self) -> None:
        """Say that the next CONNACK to be pushed lets the client in. Its client id is then free for the next login."""

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection. `reason` is one of `reasons.DISCONNECT_REASONS`. The first call decides."""


class Backend(Protocol):
    """Keeps the sessions.

    A backend that bounds itself how many logins it checks at once may say so with an attribute `bounds_logins`
    that is True. The gate then does not apply `limits.logins_at_once`.
    """

    denied: Callable[[str, Action, str], None]
    """Set by the gate. Called with client id, action and topic when a client may not publish or subscribe."""

    async def start(self) -> None:
        """Get ready for `carry`."""

    async def stop(self) -> None:
        """Forget everything. No client is being carried any more."""

    async def authenticate(self, link: Link) -> None:
        """Check the password, once. This changes no session.

        Raises:
            Refuse: `bad-credentials`, `auth-error`.
        """

    async def check_will(self, link: Link) -> None:
        """Check that the client may publish its will. Raises Refuse (`access-denied`, `auth-error`)."""

    async def carry(self, link: Link) -> None:
        """Log the client in and carry its packets until `pull` returns None. Then settle its session.

        It calls `link.welcome()` before it pushes a CONNACK that accepts the client. It raises Refuse if it
        does not accept the client.
        """

    def has_session(self, client_id: str) -> bool:
        """Whether a session of the client id is kept."""

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """The topic filters of a session and their QoS."""

    async def forget(self, client_id: str) -> None:
        """Drop the session of a client that is not connected."""
