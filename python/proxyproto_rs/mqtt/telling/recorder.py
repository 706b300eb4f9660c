"""Records each refusal, login, disconnect and denial: table row, counters, ban, log line, audit line.

The gate and the acceptors call it. It returns at once, whatever the store and the disks do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from ..model.connection import address_text
from ..model.paging import camel_case
from ..model.reasons import REASONS, counts_for_block
from ..model.records import BY_LIST, UnauthorizedClient
from . import logs
from .folding import Fold, OncePer
from .last_refusals import LastRefusals

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from proxyproto_rs import Refusal

    from ..model.connection import Connection, TlsInfo
    from ..model.events import Action, RefusedClient
    from ..model.session_record import SessionRecord
    from ..tables.blocks.auto_block import AutoBlock
    from ..tables.blocks.blocked import Blocked
    from ..tables.unauthorized import Unauthorized
    from .analytics import Analytics
    from .audit import AuditLog
    from .metrics import Metrics

_FOLD_SECONDS = 10.0
_DENIED_SECONDS = 60.0
_CAPACITY = 10_000

Refused = tuple[str, str, "Refusal"]
"""The listener, the reason, and the last refusal of that kind."""


class Recorder:
    """Implements `events.Observer`."""

    def __init__(
        self,
        *,
        unauthorized: Unauthorized,
        blocked: Blocked,
        auto_block: AutoBlock,
        audit: AuditLog,
        metrics: Metrics,
        analytics: Analytics,
        last_refusals: LastRefusals | None = None,
        node_id: str = "",
        clock: Callable[[], float] = time.time,
        ahead: Callable[[], float] = lambda: 0.0,
        blocklist: Callable[[str, int], str | None] = lambda _address, _count: None,
    ) -> None:
        self.audit = audit
        """May be replaced while running."""
        self._unauthorized = unauthorized
        self._blocked = blocked
        self._auto_block = auto_block
        self._metrics = metrics
        self._analytics = analytics
        self._last_refusals = last_refusals or LastRefusals()
        self._node_id = node_id
        self._clock = clock
        self._ahead = ahead
        """How far that clock is ahead of this machine's, by which acceptors tell the time."""
        self._blocklist = blocklist
        """Returns the name of the list that keeps an address out, if one does, and counts so many hits of it."""
        self._refusals: Fold[Refused] = Fold(_FOLD_SECONDS, _CAPACITY)
        self._denials = OncePer(_DENIED_SECONDS, _CAPACITY)

    # The gate calls these.

    def refused(self, refused: RefusedClient) -> None:
        """Record a connection that ended without having been let in."""
        connection, reason, now = refused.connection, refused.reason, self._clock()
        self._metrics.connects[connection.listener, reason] += 1
        if refused.quiet:
            return
        address = connection.client[0]
        self._analytics.refused(address, reason, now)
        known = REASONS.get(reason)
        if known is not None and known.recorded:
            attempts = self._unauthorized.record(self._row(refused, now))
            logs.refused(
                connection,
                reason=reason,
                attempts=attempts,
                client_id=refused.client_id,
                username=refused.username,
                detail=refused.detail,
                upstream=refused.upstream,
            )
        if counts_for_block(reason, refused.detail) and not connection.is_proxy_itself:
            self._auto_block.failed(address, refused.client_id, connection.address_source, now)
        self.audit.write(
            "client.refused",
            **_whose(connection),
            client_id=refused.client_id,
            username=refused.username,
            reason=reason,
            detail=refused.detail or None,
            mqttVersion=refused.mqtt_version,
            upstream=refused.upstream,
        )

    def connected(self, session: SessionRecord) -> None:
        """Record a client that is let in."""
        connection, now = session.connection, self._clock()
        address = connection.client[0]
        self._metrics.connects[connection.listener, "accepted"] += 1
        self._metrics.listener(connection.listener).connect_seconds.observe(session.login_seconds)
        self._analytics.connected(address, now)
        self._unauthorized.cleared(session.client_id, address)
        self._auto_block.succeeded(address, session.client_id)
        if connection.proxy is not None:
            self._blocked.saw_proxy(connection.proxy[0])
        logs.connected(
            connection,
            client_id=session.client_id,
            username=session.username,
            keep_alive=session.keep_alive_seconds,
            clean=session.clean_start,
            mqtt_version=session.mqtt_version,
            upstream=session.upstream,
        )
        self.audit.write(
            "client.connected",
            **_whose(connection),
            client_id=session.client_id,
            username=session.username,
            mqttVersion=session.mqtt_version,
            upstream=session.upstream,
            upstreamConnectMs=session.upstream_connect_ms,
        )

    def disconnected(self, session: SessionRecord) -> None:
        """Record the end of a session's connection."""
        connection, traffic, now = session.connection, session.traffic, self._clock()
        reason = session.disconnect_reason or "connection-lost"
        seconds = max(0, session.disconnected_at - session.connected_at) // 1000
        counts = self._metrics.listener(connection.listener)
        counts.bytes_in += traffic.bytes_in
        counts.bytes_out += traffic.bytes_out
        self._metrics.disconnects[connection.listener, reason] += 1
        self._analytics.disconnected(connection.client[0], traffic.bytes_in + traffic.bytes_out, now)
        logs.disconnected(
            connection,
            reason=reason,
            seconds=seconds,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            client_id=session.client_id,
            upstream=session.upstream,
        )
        self.audit.write(
            "client.disconnected",
            **_whose(connection),
            client_id=session.client_id,
            username=session.username,
            reason=reason,
            detail=session.detail or None,
            duration=seconds,
            upstream=session.upstream,
            bytesIn=traffic.bytes_in,
            bytesOut=traffic.bytes_out,
        )

    def denied(self, session: SessionRecord, action: Action, topic: str, times: int = 1) -> None:
        """Record a denied topic. The audit log gets one line a minute for each client, action and topic."""
        self._metrics.acl_denied[action] += times
        if self._denials.first((session.client_id, action, topic), self._clock()):
            self.audit.write(
                "publish.denied" if action == "publish" else "subscribe.denied",
                **_whose(session.connection),
                client_id=session.client_id,
                username=session.username,
                topic=topic,
            )

    def asked(self, seconds: float) -> None:
        """Record how long the auth plugins took over a login."""
        self._metrics.auth_seconds.observe(seconds)

    # Operators' actions come here.

    def operated(
        self,
        event: Literal["session.disconnect", "session.remove", "unauthorized.delete"],
        *,
        by: str,
        client_id: str | None = None,
        session: SessionRecord | None = None,
        **extra: Any,
    ) -> None:
        """Record what an operator did, in the audit log (`events.Operated`)."""
        whose = {} if session is None else {**_whose(session.connection), "username": session.username}
        self.audit.write(event, **whose, client_id=client_id, by=by, **extra)

    # The acceptors call this.

    def refused_by_acceptor(self, listener: str, trusted: Container[str], refusal: Refusal) -> None:
        """Record connections that a listener's acceptor has refused. `trusted` are its proxies."""
        client, peer = refusal.client, address_text(refusal.peer)
        address, port = peer if client is None else address_text(client)
        reason = refusal.reason
        if reason == "denied":
            block = self._blocked.match_address(address, refusal.count)
            if block is not None:  # an operator's `deny` stays `denied`; a block is `blocked`
                reason = "blocked"
                self._metrics.block_hits[block.type] += refusal.count
            elif self._blocklist(address, refusal.count) is not None:  # the detail names the list
                reason = "blocked"
                self._metrics.block_hits[BY_LIST] += refusal.count
        if reason == "closed-early" and peer[0] in trusted:
            return
        self._last_refusals.add(listener, reason, refusal)
        at = refusal.time + self._ahead()
        self._analytics.refused(address, reason, at, refusal.count)
        known = REASONS.get(reason)
        if known is not None and known.recorded:
            self._unauthorized.record(
                UnauthorizedClient(
                    client_id="",
                    ip_address=address,
                    ts=int(at * 1000),
                    reason=refusal.detail,
                    attempts=refusal.count,
                    reason_code=reason,
                    listener=listener,
                    proxy_address=None if client is None else peer[0],
                    address_source="peer" if client is None else "header",
                    port=port,
                    node_id=self._node_id,
                )
            )
        key, event = (listener, reason, address), (listener, reason, refusal)
        self._tell(self._refusals.add(key, event, refusal.count, self._clock()))

    def flush(self, *, everything: bool = False) -> None:
        """Write what has been gathered for 10 s, or everything. Call it about once a second."""
        self._tell(self._refusals.all() if everything else self._refusals.due(self._clock()))

    def _row(self, refused: RefusedClient, now: float) -> UnauthorizedClient:
        connection = refused.connection
        return UnauthorizedClient(
            client_id=refused.client_id,
            ip_address=connection.client[0],
            ts=int(now * 1000),
            username=refused.username,
            password_provided=refused.password_provided,
            tls_used=connection.tls is not None or refused.reason == "tls-failed",
            reason=refused.detail or refused.reason,
            reason_code=refused.reason,
            listener=connection.listener,
            proxy_address=connection.proxy[0] if connection.proxy is not None else None,
            address_source=connection.address_source,
            port=connection.client[1],
            node_id=self._node_id,
        )

    def _tell(self, folded: list[tuple[Refused, int]]) -> None:
        for (listener, reason, refusal), count in folded:
            peer = address_text(refusal.peer)
            self.audit.write(
                "connection.refused",
                listener=listener,
                client=peer if refusal.client is None else address_text(refusal.client),
                proxy=None if refusal.client is None else peer,
                reason=reason,
                detail=refusal.detail,
                count=count,
            )


def _whose(connection: Connection) -> dict[str, Any]:
    """The fields of a connection that every audit line has."""
    return {
        "listener": connection.listener,
        "client": connection.client,
        "proxy": connection.proxy,
        "proxy_version": connection.proxy_version,
        "session_id": connection.session_id,
        "tls": _tls_json(connection.tls),
    }


def _tls_json(tls: TlsInfo | None) -> dict[str, Any] | None:
    return (
        None if tls is None else {camel_case(name): getattr(tls, name) for name in tls.__dataclass_fields__}
    )
