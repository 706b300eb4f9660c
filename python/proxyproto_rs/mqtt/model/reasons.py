"""Why a client is refused: the one table of codes, with MQTT's answer and whether it is recorded and counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason code and its consequences."""

    code: str
    connack: int | None
    """The MQTT 3.1.1 return code that answers the CONNECT. None: the connection is closed without an answer."""
    recorded: bool
    """Whether the table of unauthorized clients gets a row."""
    counts: bool
    """Whether it counts towards an automatic block of the address."""


def _table(*rows: tuple[str, int | None, bool, bool]) -> dict[str, Reason]:
    return {row[0]: Reason(*row) for row in rows}


REASONS = _table(
    # code, CONNACK, recorded, counts
    ("bad-credentials", 5, True, True),
    ("auth-error", 3, True, False),
    ("blocked", 5, True, False),
    ("access-denied", 5, True, False),
    ("cert-required", 5, True, True),
    ("protocol-version", 1, True, False),
    ("identifier-rejected", 2, True, False),
    ("malformed-connect", None, True, True),
    ("no-connect", None, True, False),
    ("closed-early", None, True, False),
    ("packet-too-large", None, True, False),
    ("upstream-unavailable", 3, True, False),
    ("upstream-refused", None, True, False),  # the server's own answer is passed on
    ("broker-error", 3, True, False),
    ("tls-failed", None, True, False),  # counts if the detail is bad-certificate: see `counts_for_block`
    ("ws-failed", None, True, False),
    # from the acceptor, under its names
    ("untrusted", None, True, False),
    ("missing-header", None, True, False),
    ("malformed", None, True, False),
    ("oversized", None, True, False),
    ("bad-checksum", None, True, False),
    ("timeout", None, True, False),
    ("unexpected-header", None, True, False),
    ("version-not-allowed", None, True, False),
    ("tls-required", None, True, False),
    ("denied", None, True, False),
    ("rate-limited", None, False, False),
    ("too-many-from-client", None, False, False),
    ("too-many", None, False, False),
    ("pending-overflow", None, False, False),
    # from the gate
    ("too-many-sessions", 3, False, False),
    ("busy", None, False, False),
)


def counts_for_block(code: str, detail: str = "") -> bool:
    """Whether the refusal counts towards an automatic block. Of TLS failures only a bad certificate does."""
    if code == "tls-failed":
        return detail.startswith("bad-certificate")
    reason = REASONS.get(code)
    return reason is not None and reason.counts


class Refuse(Exception):
    """Ends a login. `reason` is a code of `REASONS`, `detail` a text for the log."""

    def __init__(self, reason: str, detail: str = "", *, client_id: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.client_id = client_id
        """The client id, if a CONNECT that cannot be served still shows it."""


DISCONNECT_REASONS = (
    "disconnect",
    "connection-lost",
    "keep-alive",
    "taken-over",
    "administrative",
    "blocked",
    "rate-limited",
    "malformed-packet",
    "packet-too-large",
    "packet-timeout",
    "bad-topic",
    "second-connect",
    "slow-consumer",
    "broker-error",
    "upstream-closed",
    "upstream-lost",
    "server-shutdown",
)
