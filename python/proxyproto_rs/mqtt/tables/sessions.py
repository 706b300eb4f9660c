"""Who is connected, and whose session is kept. There is a record for each client id, with its newest address.

The records are those of this node. Where a store shows the sessions of all nodes, the list comes from there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..model.events import Operated, nobody_told
from ..model.login import NO_EXPIRY, Login
from ..model.paging import Page
from ..model.records import BlockedClient
from ..model.session_query import SessionQuery
from ..model.session_record import ConnectedClient, SessionRecord, Transferred
from ..store.nodes import Owner, SessionCounts, Visit
from .session_query import SLICE, find


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session with its subscriptions."""

    record: SessionRecord
    subscriptions: Mapping[str, int]
    """Topic filter to QoS."""

    def to_json(self) -> dict[str, Any]:
        """Return the row for JSON, with TBMQ's `subscriptions` list."""
        subscriptions = [
            {"topicFilter": name, "qos": qos} for name, qos in sorted(self.subscriptions.items())
        ]
        return {**self.record.to_json(), "subscriptions": subscriptions}


class Connected(Login, Protocol):
    """A client that has logged in, as the registry sees it."""

    record: SessionRecord | None
    """Its record; None until it is let in."""
    reason: str | None
    """Why the connection ended; None while it is open."""
    detail: str

    @property
    def traffic(self) -> Transferred:
        """Its bytes and packets."""

    def age(self) -> float:
        """Return the seconds since the connection was accepted."""

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection. `reason` is one of `reasons.DISCONNECT_REASONS`. The first call decides."""

    async def wait_settled(self) -> None:
        """Wait until the session of an ended client is settled."""


class Kept(Protocol):
    """The part of a `backend.Backend` that the registry uses."""

    def has_session(self, client_id: str) -> bool:
        """Whether a session of the client id is kept."""

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        """The topic filters of a session and their QoS."""

    async def forget(self, client_id: str) -> None:
        """Drop the session of a client that is not connected."""


class Elsewhere(Protocol):
    """The sessions of all nodes, those of this one included."""

    def changed(self, client_id: str) -> None:
        """Take over what `Sessions.record` says of the client id now."""

    async def find(self, query: SessionQuery) -> Page[SessionRecord]:
        """Find a page."""

    async def get(self, client_id: str) -> SessionRecord | None:
        """Return the session of a client id."""

    async def count_elsewhere(self) -> SessionCounts:
        """Count the sessions that this node does not have."""

    async def visit_connected(self, block: BlockedClient, visit: Visit) -> None:
        """Visit the connected clients that the block may cover."""

    async def owner_elsewhere(self, client_id: str) -> Owner | None:
        """Return the owner of a session that this node does not have; None if there is none, or if it is not known."""

    async def ask(
        self, verb: Literal["disconnect", "remove"], client_id: str, session_id: str | None, by: str
    ) -> bool:
        """Let the node that has the session do it. Return whether it has done it."""


class Sessions:
    """The registry of sessions. It is in memory only; a backend that keeps sessions gives them back at the start."""

    def __init__(self, kept: Kept, node_id: str = "", expiry: int = 0) -> None:
        self._kept = kept
        self._node_id = node_id
        self._expiry = expiry
        self._records: dict[str, SessionRecord] = {}
        self.operated: Operated = nobody_told
        """Is told what operators do."""
        self.elsewhere: Elsewhere | None = None
        """Knows the sessions of all nodes, if a store shares them."""
        self.clock: Callable[[], float] = time.time
        """Gives the seconds since 1970 that all nodes agree on."""
        self._clients: dict[str, Connected] = {}
        self._by_address: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def connected_from(self, address: str) -> int:
        """How many clients are connected from one address, over all listeners."""
        return self._by_address.get(address, 0)

    def addresses(self) -> Iterator[tuple[str, int]]:
        """Iterate over the addresses of connected clients, each with how many there are."""
        return iter(list(self._by_address.items()))

    def clients(self) -> Iterator[Connected]:
        """Iterate over the clients that are connected now."""
        return iter(list(self._clients.values()))

    def kept_by(self, kept: Kept) -> None:
        """Ask another about the sessions that are kept, before the first client comes."""
        self._kept = kept

    def restore(self, record: SessionRecord) -> None:
        """Open the record of a session that the backend has kept over a restart."""
        record.node_id = self._node_id
        self._records[record.client_id] = record
        self._tell(record.client_id)

    def records(self) -> Iterator[SessionRecord]:
        """Iterate over all records, without asking the backend."""
        return iter(list(self._records.values()))

    def record(self, client_id: str) -> SessionRecord | None:
        """Return the record of a client id, without asking the backend."""
        return self._records.get(client_id)

    def client(self, client_id: str) -> Connected | None:
        """Return the connected client with that id."""
        return self._clients.get(client_id)

    # The gate calls these two.

    def begin(self, client: Connected, client_id: str = "") -> SessionRecord:
        """Open the record of a client that is let in. It replaces an older record of the client id.

        `client_id` is what a server has chosen for the client.
        """
        connect = client.connect
        client_id = client_id or connect.client_id
        record = SessionRecord(
            client_id=client_id,
            username=client.username,
            connection=client.connection,
            traffic=client.traffic,
            node_id=self._node_id,
            clean_start=connect.clean_session,
            keep_alive_seconds=connect.keep_alive,
            session_expiry_interval=self._interval(connect.session_expiry),
            mqtt_version=connect.mqtt_version,
            is_kept=connect.session_expiry != 0,
            connected_at=self._now(),
            login_seconds=client.age(),
        )
        self._records[client_id] = record
        self._clients[client_id] = client
        address = client.connection.client[0]
        self._by_address[address] = self._by_address.get(address, 0) + 1
        self._tell(client_id)
        return record

    def finish(self, client: Connected, record: SessionRecord, expiry: int | None = None) -> None:
        """Close the record. It is removed if the session ends with the connection.

        `expiry` is how long the session is to be kept, in seconds, if the client's DISCONNECT said it anew. It may not
        keep a session that ends with its connection (MQTT 5, section 3.14.2.2.2).
        """
        if expiry is not None and record.is_kept:
            record.is_kept, record.session_expiry_interval = expiry != 0, self._interval(expiry)
        record.connected = False
        record.disconnected_at = self._now()
        record.disconnect_reason = client.reason
        record.detail = client.detail
        address = client.connection.client[0]
        if (left := self._by_address[address] - 1) > 0:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        if self._clients.get(record.client_id) is client:
            del self._clients[record.client_id]
            if not record.is_kept:
                del self._records[record.client_id]
            self._tell(record.client_id)

    def take_over(self, client_id: str, session_id: str) -> None:
        """End a session whose client has come to another node, and forget it."""
        record = self._records.get(client_id)
        if record is None or record.session_id != session_id:
            return
        client = self._clients.get(client_id)
        if client is not None:
            client.end("taken-over")
        else:
            del self._records[client_id]

    # Operators call these.

    async def find(self, query: SessionQuery | None = None) -> Page[SessionRecord]:
        """List sessions, those of all nodes that share the store, newest first unless the query says otherwise.

        Raises StoreError if the store fails.
        """
        query = query or SessionQuery()
        if self.elsewhere is not None:
            await self.sweep()
            page = await self.elsewhere.find(query)
            return dataclasses.replace(page, data=tuple(map(self._newest, page.data)))
        page = await find(self._slices(count=_needs_counts(query)), query)
        for record in page.data:
            self._count_subscriptions(record)
        return page

    async def count(self) -> SessionCounts:
        """Count the sessions, those of all nodes that share the store. Raises StoreError if the store fails.

        The counts of other nodes are as they told last, which they do every 2 s.
        """
        connected = self.connected
        here = SessionCounts(connected, max(len(self), connected))
        if self.elsewhere is None:
            return here
        others = await self.elsewhere.count_elsewhere()
        return SessionCounts(here.connected + others.connected, here.rows + others.rows)

    async def count_by_state(self) -> dict[tuple[str, str], int]:
        """Count this node's sessions by listener and state (`connected`, `disconnected`)."""
        counts: Counter[tuple[str, str]] = Counter()
        async for records in self._slices():
            for record in records:
                counts[listener_and_state(record)] += 1
        return dict(counts)

    async def visit_connected(self, block: BlockedClient, visit: Visit) -> None:
        """Visit the connected clients, those of all nodes that share the store, that the block may cover.

        It may visit others too. Raises StoreError if the store fails.
        """
        if self.elsewhere is not None:
            await self.elsewhere.visit_connected(block, visit)
            return
        async for records in self._slices():
            await visit(
                [
                    ConnectedClient(record.client_id, record.username, record.connection.client[0])
                    for record in records
                    if record.connected
                ]
            )

    async def get(self, client_id: str) -> SessionView | None:
        """Return one session with its subscriptions; None if there is none with that client id.

        Of a session on another node only their number is known. Raises StoreError if the store fails.
        """
        record = self._records.get(client_id)
        if record is not None and self._has_expired(record):
            self._drop(record)
            record = None
        if self.elsewhere is not None and client_id not in self._clients:
            stored = await self.elsewhere.get(client_id)
            if stored is None or self._newest(stored) is stored:
                return None if stored is None else SessionView(stored, {})
        if record is None:
            return None
        subscriptions = self._kept.subscriptions(client_id)
        record.subscriptions_count = len(subscriptions)
        return SessionView(record, subscriptions)

    async def disconnect(self, client_id: str, session_id: str | None = None, *, by: str = "api") -> bool:
        """End the connection of a client, on whatever node, and wait until it is closed. `by` is for the audit log.

        Returns False if no such client is connected, or if its connection is no longer that of `session_id`.

        Raises:
            StoreError: The client is on another node, and that node or the store does not answer.
        """
        if client_id in self._clients or self.elsewhere is None:
            return await self.disconnect_here(client_id, session_id, by=by)
        record = await self.elsewhere.get(client_id)
        if record is None or not record.connected or session_id not in (None, record.session_id):
            return False
        return await self.elsewhere.ask("disconnect", client_id, record.session_id, by)

    async def disconnect_here(self, client_id: str, session_id: str | None = None, *, by: str) -> bool:
        """Do as `disconnect` does, for clients of this node."""
        client = self._clients.get(client_id)
        if client is None or session_id not in (None, client.connection.session_id):
            return False
        self.operated("session.disconnect", by=by, client_id=client_id, session=client.record)
        client.end("administrative")
        await client.wait_settled()
        return True

    async def remove(self, client_id: str, *, by: str = "api") -> bool:
        """Forget a kept session, its subscriptions and its queued messages. Returns False if there is none.

        Raises:
            ValueError: The client is connected: disconnect it first. Or a server behind keeps the session.
            StoreError: The session is on another node, and that node or the store does not answer.
        """
        if self.elsewhere is None or client_id in self._records or self._kept.has_session(client_id):
            return await self.remove_here(client_id, by=by)
        record = await self.elsewhere.get(client_id)
        if record is None:
            return False
        if record.upstream is not None:
            await self._kept.forget(client_id)  # which says who can
        return await self.elsewhere.ask("remove", client_id, record.session_id, by)

    async def remove_here(self, client_id: str, *, by: str) -> bool:
        """Do as `remove` does, for sessions of this node."""
        if client_id in self._clients:
            raise ValueError(f"client {client_id!r} is connected: disconnect it first")
        record = self._records.get(client_id)
        if record is None and not self._kept.has_session(client_id):
            return False
        await self._kept.forget(client_id)
        if record is not None and self._records.get(client_id) is record:
            del self._records[client_id]
            self._tell(client_id)
        self.operated("session.remove", by=by, client_id=client_id, session=record)
        return True

    async def end_where(self, reason: str, covers: Callable[[SessionRecord], bool], detail: str = "") -> int:
        """End every connection that a new rule covers. Return how many there were.

        The event loop gets a turn after each slice. Who logs in meanwhile is not asked about: the rule is in force.
        """
        ended = 0
        for position, client in enumerate(self.clients(), 1):
            if position % SLICE == 0:
                await asyncio.sleep(0)
            if client.record is not None and client.reason is None and covers(client.record):
                client.end(reason, detail)
                ended += 1
        return ended

    async def sweep(self) -> None:
        """Drop the records of sessions that the backend has let expire."""
        async for _ in self._slices():
            pass

    async def _slices(self, *, count: bool = False) -> AsyncIterator[list[SessionRecord]]:
        """Iterate over all records in slices, and give the event loop a turn after each. What has expired is dropped.

        With `count`, their subscriptions are counted.
        """
        known = list(self._records.values())
        for start in range(0, len(known), SLICE):
            records = []
            for record in known[start : start + SLICE]:
                if self._records.get(record.client_id) is not record:
                    continue
                if self._has_expired(record):
                    self._drop(record)
                    continue
                if count:
                    self._count_subscriptions(record)
                records.append(record)
            yield records
            await asyncio.sleep(0)

    def _interval(self, expiry: int | None) -> int:
        """Return for how many seconds a session is kept; 0 if it ends with the connection, or never."""
        return self._expiry if expiry is None else expiry if expiry != NO_EXPIRY else 0

    def _has_expired(self, record: SessionRecord) -> bool:
        return (
            not record.connected
            and record.client_id not in self._clients
            and not self._kept.has_session(record.client_id)
        )

    def _drop(self, record: SessionRecord) -> None:
        del self._records[record.client_id]
        self._tell(record.client_id)

    def _count_subscriptions(self, record: SessionRecord) -> None:
        record.subscriptions_count = len(self._kept.subscriptions(record.client_id))

    def _newest(self, stored: SessionRecord) -> SessionRecord:
        """Return this node's own record of a session, if it is one of its own: that has the traffic of now."""
        own = self._records.get(stored.client_id)
        if own is None or own.session_id != stored.session_id:
            return stored
        self._count_subscriptions(own)
        return own

    def _tell(self, client_id: str) -> None:
        if self.elsewhere is not None:
            self.elsewhere.changed(client_id)

    def _now(self) -> int:
        return int(self.clock() * 1000)


def listener_and_state(record: SessionRecord) -> tuple[str, str]:
    """Return by what sessions are counted: the listener, and `connected` or `disconnected`."""
    return record.connection.listener, "connected" if record.connected else "disconnected"


def _needs_counts(query: SessionQuery) -> bool:
    return query.subscriptions is not None or query.sort_column == "subscriptions_count"
