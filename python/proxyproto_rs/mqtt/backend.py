"""The seam behind the gate: who keeps sessions and carries packets once a client may come in.

A backend sees admitted clients and whole, checked packets only. It knows nothing of PROXY, TLS, WebSocket,
blocks or limits; the gate knows nothing of how messages find their subscribers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .connect import Connect
    from .connection import Connection
    from .events import Action


class Link(Protocol):
    """One client, as the backend sees it."""

    connection: Connection
    connect: Connect
    username: str | None
    """Who it is: the CONNECT's user name, or the name in its certificate."""
    certificate_is_login: bool
    """The certificate has proved the name; nobody is asked for the password."""
    ssl_object: Any
    """What answers `getpeercert`, `version` and `cipher` like an ssl.SSLObject; None without TLS."""
    backend_state: Any
    """The backend's own, from `authenticate` to `carry`; None before."""

    reason: str | None
    """Why it ended, as in `end`; None while it has not."""

    @property
    def ended(self) -> bool:
        """Whether `pull` gives nothing more."""

    @property
    def max_send_buffer(self) -> int:
        """Bytes that may wait for a client that does not read."""

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""

    async def pull(self) -> bytes | None:
        """Give the next packet after CONNECT; None when the client is gone, said DISCONNECT, or was ended.

        A cancelled pull has taken no packet.
        """

    def push(self, packet: bytes) -> None:
        """Send one packet. What cannot be sent any more is dropped; a client that does not read is ended."""

    async def drain(self) -> None:
        """Wait until the client has taken most of what was pushed, or is gone."""

    def welcome(self) -> None:
        """Say that the CONNACK about to be pushed lets the client in. Its id is then free for the next."""

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection; `reason` is one of `reasons.DISCONNECT_REASONS`. The first one counts."""


class Backend(Protocol):
    """What keeps the sessions."""

    denied: Callable[[str, Action, str], None]
    """Set by the gate: called with client id, action and topic when a client may not publish or subscribe."""

    async def start(self) -> None:
        """Be ready for `carry`."""

    async def stop(self) -> None:
        """Forget everything. No client is carried any more."""

    async def authenticate(self, link: Link) -> None:
        """Ask whoever knows the passwords, once. Changes nothing for anybody.

        Raises:
            Refuse: `bad-credentials`, `auth-error`.
        """

    async def check_will(self, link: Link) -> None:
        """Ask whether the client may publish its will. Raises Refuse (`access-denied`, `auth-error`)."""

    async def carry(self, link: Link) -> None:
        """Log the client in and carry its packets until `pull` gives None, then settle its session.

        Calls `link.welcome()` before it pushes a CONNACK that accepts. Raises Refuse where it does not.
        """

    def has_session(self, client_id: str) -> bool:
        """Whether anything is kept for the client id."""

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """Topic filters of a session and their QoS."""

    async def forget(self, client_id: str) -> None:
        """Drop the session of a client that is not connected."""
