"""What the API shows and changes: a running broker, as far as HTTP needs it. `service.BrokerService` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proxyproto_rs import ListenerStats

from ..config import BrokerConfig
from ..store.nodes import Node
from ..tables.blocklists.blocklists import Blocklists
from ..tables.blocks.blocked import Blocked
from ..tables.sessions import Sessions
from ..tables.unauthorized import Unauthorized
from ..telling.analytics import By, Minute, TopEntry
from ..telling.audit import AuditEvent
from ..telling.feed import Feed
from ..telling.last_refusals import LastRefusals
from ..telling.sources import BrokerSources


class Broker(Protocol):
    """A broker that runs."""

    config: BrokerConfig
    node_id: str
    started_at: int
    """Milliseconds since 1970."""
    sessions: Sessions
    unauthorized: Unauthorized
    blocked: Blocked
    blocklists: Blocklists
    sources: BrokerSources
    feed: Feed
    """What is told to those who listen to events."""
    last_refusals: LastRefusals

    def stats(self) -> Mapping[str, ListenerStats]:
        """The counts of connections by outcome, for each listener."""

    def addresses(self) -> Mapping[str, str]:
        """Where each listener listens, as `host:port`."""

    async def top(self, by: By = "connects", prefix: int = 32, limit: int = 20) -> tuple[TopEntry, ...]:
        """The busiest real addresses."""

    async def nodes(self) -> tuple[Node, ...]:
        """The living nodes that share the store."""

    async def history(self) -> tuple[Minute, ...]:
        """The last 24 hours, minute by minute."""

    def lag(self) -> float:
        """By how many seconds the event loop is late."""

    async def not_ready(self) -> tuple[str, ...]:
        """What keeps the broker from serving clients."""

    def audited(self, event: AuditEvent, **fields: object) -> None:
        """Write an audit line."""
