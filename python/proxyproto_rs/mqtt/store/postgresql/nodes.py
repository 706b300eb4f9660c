"""What the nodes know of each other, in PostgreSQL: their signs of life, all sessions, and what they ask of each other."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ...model.paging import Page
from ...model.records import BlockedClient
from ...model.session_query import SessionQuery
from ...model.session_record import FORGOTTEN_AFTER, ConnectedClient, SessionRecord
from ..nodes import Node, NodeCounts, Owner, Request, SessionCounts, Verb, Visit
from . import schema, session_rows, value_by_value
from .announcements import Announcements
from .clock import DatabaseClock
from .database import Database
from .gathered import Gathered
from .schema import Connection
from .session_query import Conditions, order, possibly_covered

_CHANNEL = "proxyproto_rs_nodes"
_NOBODY = uuid.UUID(int=0)
"""Owns the rows of sessions whose node has gone."""

_COUNTED = 10_000  # rows that a total counts; more are estimated
_VISITED_AT_ONCE = 5000
_SETTLED_AT_ONCE = 5000  # rows in one transaction, so that no writer waits for long
_FORGET_REQUESTS = "60 seconds"

_ENTER = "INSERT INTO proxyproto_rs.node (instance, node_id, outlives) VALUES ($1, $2, $3)"
_LEAVE = "UPDATE proxyproto_rs.node SET seen = '-infinity' WHERE instance = $1"
_BEAT = (
    "UPDATE proxyproto_rs.node SET seen = clock_timestamp(), connected = $2, rows = $3, top = $4"
    " WHERE instance = $1 AND NOT gone AND seen > '-infinity' RETURNING true"
)
_LIST = (
    "SELECT node_id, (extract(epoch FROM started) * 1000)::bigint AS started_at,"
    " (extract(epoch FROM seen) * 1000)::bigint AS seen_at,"
    " connected, rows, top, instance = $1 AS is_this FROM proxyproto_rs.node WHERE NOT gone AND seen > '-infinity'"
    " ORDER BY node_id, started"
)
_TOTAL = "SELECT COALESCE(sum(rows), 0)::bigint FROM proxyproto_rs.node WHERE NOT gone"
_ELSEWHERE = (
    "SELECT COALESCE(sum(connected), 0)::bigint, COALESCE(sum(rows), 0)::bigint FROM proxyproto_rs.node"
    " WHERE NOT gone AND seen > '-infinity' AND instance <> $1"
)
_VISIT = "SELECT client_id, username, client_ip_adr FROM proxyproto_rs.client_session WHERE connected"
_OWNERS = (
    "SELECT client_id, username FROM proxyproto_rs.client_session WHERE client_id = ANY($2::text[])"
    " AND owner <> $1 AND (connected OR forgotten_at > $3)"
)

# A node that has no sign of life is gone for good: if it comes back, it enters again.
_LOSE = (
    "UPDATE proxyproto_rs.node SET gone = true WHERE instance IN (SELECT instance FROM proxyproto_rs.node"
    " WHERE seen = '-infinity' OR seen < clock_timestamp() - make_interval(secs => $1::double precision)"
    " FOR UPDATE SKIP LOCKED)"
)
_LOST = (
    "SELECT instance, node_id, outlives, CASE WHEN seen = '-infinity' THEN $1"
    " ELSE (extract(epoch FROM seen) * 1000)::bigint END FROM proxyproto_rs.node WHERE gone"
)
# Rows are locked in the order of their keys, as every writer does, and those that are being written are left out:
# they get another owner.
_SETTLE = (
    "WITH these AS (SELECT client_id FROM proxyproto_rs.client_session WHERE owner = $1"  # noqa: S608
    f" ORDER BY client_id LIMIT {_SETTLED_AT_ONCE} FOR UPDATE SKIP LOCKED),"
    " dropped AS (DELETE FROM proxyproto_rs.client_session WHERE client_id IN (SELECT client_id FROM these)"
    " AND NOT ($2 AND is_kept)),"
    " closed AS (UPDATE proxyproto_rs.client_session SET owner = $3, connected = false,"
    " disconnected_at = CASE WHEN connected THEN $4 ELSE disconnected_at END,"
    " disconnect_reason = CASE WHEN connected THEN 'connection-lost' ELSE disconnect_reason END,"
    " detail = CASE WHEN connected THEN $5 ELSE detail END,"
    " forgotten_at = CASE WHEN NOT connected THEN forgotten_at WHEN session_expiry_interval > 0"
    f" THEN $4 + session_expiry_interval * 1000 ELSE $4 + {FORGOTTEN_AFTER} END"
    " WHERE client_id IN (SELECT client_id FROM these) AND $2 AND is_kept)"
    " SELECT count(*) FROM these"
)
_FORGET_NODE = (
    "DELETE FROM proxyproto_rs.node WHERE instance = $1 AND gone"
    " AND NOT EXISTS (SELECT FROM proxyproto_rs.client_session WHERE owner = $1)"
)
_PURGE = (
    "DELETE FROM proxyproto_rs.client_session WHERE client_id IN"
    " (SELECT client_id FROM proxyproto_rs.client_session WHERE owner = $1 AND NOT connected AND forgotten_at <= $2"
    " FOR UPDATE SKIP LOCKED)"
)

_INCOMING = f"pg_temp.{schema.INCOMING_SESSIONS}"
# A client that has moved belongs to the node that it came to last. The row itself says whose it was, because whatever
# is read before may have changed when the row is written. All rows are locked in one pass, in the order of their keys.
_MERGE = (
    f"WITH written AS (INSERT INTO proxyproto_rs.client_session AS known ({', '.join(session_rows.COLUMNS)})"  # noqa: S608
    f" SELECT {', '.join(session_rows.COLUMNS)} FROM {_INCOMING} ORDER BY client_id"
    " ON CONFLICT (client_id) DO UPDATE SET "
    " owner_before = CASE WHEN known.owner <> excluded.owner THEN known.owner END,"
    " session_before = CASE WHEN known.owner <> excluded.owner THEN known.session_id END, "
    + ", ".join(f"{name} = excluded.{name}" for name in session_rows.COLUMNS if name != "client_id")
    + " WHERE known.owner = excluded.owner OR known.connected_at <= excluded.connected_at"
    " RETURNING client_id, connected, owner_before, session_before),"
    " overtaken AS (INSERT INTO proxyproto_rs.node_request (instance, asker, verb, client_id, session_id, made_by)"
    " SELECT owner_before, $1, 'taken-over', client_id, session_before, '' FROM written WHERE connected"
    " AND owner_before IN (SELECT instance FROM proxyproto_rs.node WHERE NOT gone AND seen > '-infinity')"
    " RETURNING instance)"
    " SELECT (SELECT count(*) FROM written) AS written, ARRAY(SELECT DISTINCT instance::text FROM overtaken) AS overtaken"
)
_MOVED = (
    "SELECT client_id FROM proxyproto_rs.client_session WHERE client_id = ANY($2::text[]) AND owner <> $1"
)
_END = (
    "DELETE FROM proxyproto_rs.client_session WHERE client_id IN"
    " (SELECT client_id FROM proxyproto_rs.client_session WHERE client_id = ANY($2::text[]) AND owner = $1"
    " ORDER BY client_id FOR UPDATE)"
)
_NOTIFY = f"SELECT pg_notify('{_CHANNEL}', told) FROM unnest($1::text[]) AS told"  # noqa: S608

_ASK = (
    "INSERT INTO proxyproto_rs.node_request (instance, asker, verb, client_id, session_id, made_by)"
    " SELECT owner, $1, $2, client_id, $4, $5 FROM proxyproto_rs.client_session"
    " WHERE client_id = $3 AND owner IN (SELECT instance FROM proxyproto_rs.node WHERE NOT gone AND seen > '-infinity')"
    " RETURNING number, instance"
)
_ASKED = (
    "SELECT number, verb, client_id, session_id, made_by FROM proxyproto_rs.node_request"
    " WHERE instance = $1 AND answer IS NULL ORDER BY number LIMIT 1000"
)
# Nobody waits to hear that a session was taken over.
_ANSWERED = "DELETE FROM proxyproto_rs.node_request WHERE number = ANY($1::bigint[]) AND verb = 'taken-over'"
_ANSWER = (
    "UPDATE proxyproto_rs.node_request SET answer = told.answer"
    " FROM unnest($1::bigint[], $2::text[]) AS told (number, answer)"
    " WHERE node_request.number = told.number RETURNING asker"
)
_ANSWER_OF = "SELECT answer FROM proxyproto_rs.node_request WHERE number = $1"
_FORGET_OLD = f"DELETE FROM proxyproto_rs.node_request WHERE made < now() - interval '{_FORGET_REQUESTS}'"  # noqa: S608


class PostgresNodes:
    """Implements `store.Nodes`, whose docstrings say what each method does."""

    def __init__(self, database: Database, announcements: Announcements, clock: DatabaseClock) -> None:
        self._database = database
        self._announcements = announcements
        self._clock = clock
        self._instance = _NOBODY
        self._owners: Gathered[str, Owner | None] = Gathered(self._find_owners, limit=1000)
        self._alive: Database | None = None
        """A connection of its own: whoever lists a million sessions must not keep a sign of life waiting."""

    async def enter(self, node_id: str, *, outlives: bool) -> None:
        """Begin a life of this node."""
        if self._alive is None:
            self._alive = await self._database.another(connections=1)
        instance = uuid.uuid4()

        async def enter(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(_LEAVE, self._instance)
                await connection.execute(_ENTER, instance, schema.text(node_id), outlives)

        await self._database.run(enter)
        self._instance = instance

    async def beat(self, counts: NodeCounts) -> bool:
        """Give a sign of life."""
        top = schema.text(json.dumps(counts.top))

        async def beat(connection: Connection) -> bool:
            await self._clock.measure(connection)
            return bool(await connection.fetchval(_BEAT, self._instance, counts.connected, counts.rows, top))

        assert self._alive is not None
        return await self._alive.run(beat)

    async def settle(self, silent: float | None) -> int:
        """Close the rows of nodes that have gone."""

        async def lose(connection: Connection) -> list[Any]:
            await connection.execute(_LOSE, 1e9 if silent is None else silent)
            return list(await connection.fetch(_LOST, int(self._clock() * 1000)))

        total = 0
        for instance, node_id, outlives, seen in await self._database.run(lose):
            detail = f"node {node_id} has gone"

            async def close(
                connection: Connection, lost: tuple[Any, ...] = (instance, outlives, seen, detail)
            ) -> int:
                instance, outlives, seen, detail = lost
                return int(await connection.fetchval(_SETTLE, instance, outlives, _NOBODY, seen, detail))

            while closed := await self._database.run(close):
                total += closed

            async def forget(connection: Connection, instance: uuid.UUID = instance) -> None:
                await connection.execute(_FORGET_NODE, instance)

            await self._database.run(forget)
        return total

    async def purge(self, now: int) -> int:
        """Delete expired rows of nodes that have gone, and requests that nobody waits for."""

        async def purge(connection: Connection) -> int:
            await connection.execute(_FORGET_OLD)
            return affected(await connection.execute(_PURGE, _NOBODY, now))

        return await self._database.run(purge)

    async def write(self, records: Sequence[SessionRecord], ended: Sequence[str]) -> tuple[str, ...]:
        """Write the present state of sessions."""
        ahead = round((self._clock() - time.time()) * 1000)
        rows = {
            row[0]: row for row in (session_rows.row_of(record, self._instance, ahead) for record in records)
        }
        gone = sorted({schema.text(client_id) for client_id in ended})

        async def write(connection: Connection) -> tuple[str, ...]:
            async with connection.transaction():
                await connection.copy_records_to_table(
                    schema.INCOMING_SESSIONS,
                    schema_name="pg_temp",
                    records=[*rows.values()],
                    columns=session_rows.COLUMNS,
                )
                ((written, overtaken),) = await connection.fetch(_MERGE, self._instance)
                moved = (
                    () if written == len(rows) else await connection.fetch(_MOVED, self._instance, [*rows])
                )
                if overtaken:
                    await connection.execute(_NOTIFY, overtaken)
                return tuple(row[0] for row in moved)

        async def end(connection: Connection) -> None:
            await connection.execute(_END, self._instance, gone)

        moved = await self._database.run(write) if rows else ()
        if gone:  # in a transaction of its own, so that all rows are locked in one order
            await self._database.run(end)
        return moved

    async def moved(self, client_ids: Sequence[str]) -> frozenset[str]:
        """Return the client ids that are on other nodes."""
        known = {schema.text(client_id): client_id for client_id in client_ids}

        async def read(connection: Connection) -> frozenset[str]:
            rows = await connection.fetch(_MOVED, self._instance, [*known])
            return frozenset(known[row[0]] for row in rows)

        return await self._database.run(read)

    async def find(self, query: SessionQuery) -> Page[SessionRecord]:
        """Find a page of the sessions of all nodes."""
        conditions = Conditions(query)

        async def find(connection: Connection) -> Page[SessionRecord]:
            start = query.page * query.page_size
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                limit = int(query.page_size) + 1
                rows = await value_by_value.read(connection, query, limit)
                if rows is None:
                    rows = await connection.fetch(
                        f"{session_rows.SELECT}{conditions.rows}{order(query)} LIMIT {limit} OFFSET {int(start)}",
                        *conditions.values,
                    )
                # The last page tells the total. Looking for a part of a text once more would take as long again.
                is_last = query.cursor is None and len(rows) <= query.page_size and (rows or not start)
                total = start + len(rows) if is_last else await _total(connection, conditions)
            data = tuple(session_rows.record_of(row) for row in rows[: query.page_size])
            has_next = len(rows) > query.page_size
            if rows:
                total = max(total, start + len(rows))
            return Page(
                data,
                -(-total // query.page_size),
                total,
                has_next,
                query.cursor_behind(data[-1]) if has_next else None,
            )

        return await self._database.run(find)

    async def get(self, client_id: str) -> SessionRecord | None:
        """Return the session of a client id."""

        async def get(connection: Connection) -> SessionRecord | None:
            row = await connection.fetchrow(
                f"{session_rows.SELECT} WHERE client_id = $1", schema.text(client_id)
            )
            return None if row is None else session_rows.record_of(row)

        return await self._database.run(get)

    async def count_elsewhere(self) -> SessionCounts:
        """Count the sessions of the other nodes."""

        async def count(connection: Connection) -> SessionCounts:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                ((connected, rows),) = await connection.fetch(_ELSEWHERE, self._instance)
                return SessionCounts(connected, rows + await _left_behind(connection))

        return await self._database.run(count)

    async def visit_connected(self, block: BlockedClient, visit: Visit) -> None:
        """Visit the connected clients that the block may cover."""
        clause, values = possibly_covered(block)

        async def read(connection: Connection) -> None:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = await connection.cursor(f"{_VISIT}{clause} ORDER BY client_id", *values)
                while some := await rows.fetch(_VISITED_AT_ONCE):
                    await visit([ConnectedClient(*row) for row in some])

        await self._database.run(read)

    async def owner_elsewhere(self, client_id: str) -> Owner | None:
        """Return the owner of a session that another node has."""
        return await self._owners.call(schema.text(client_id))

    async def ask(self, verb: Verb, client_id: str, session_id: str | None, by: str) -> int | None:
        """Ask the node that has the session."""

        async def ask(connection: Connection) -> int | None:
            async with connection.transaction():
                made = await connection.fetchrow(
                    _ASK, self._instance, verb, schema.text(client_id), session_id, schema.text(by)
                )
                if made is None:
                    return None
                await connection.execute(_NOTIFY, [str(made["instance"])])
                return int(made["number"])

        return await self._database.run(ask)

    async def answer_of(self, number: int) -> str | None:
        """Return the answer to a request."""

        async def read(connection: Connection) -> str | None:
            answer: str | None = await connection.fetchval(_ANSWER_OF, number)
            return answer

        return await self._database.run(read)

    async def asked(self) -> tuple[Request, ...]:
        """Return what this node is asked."""

        async def read(connection: Connection) -> tuple[Request, ...]:
            return tuple(Request(*row) for row in await connection.fetch(_ASKED, self._instance))

        return await self._database.run(read)

    async def answer(self, answers: Sequence[tuple[int, str]]) -> None:
        """Answer requests."""
        numbers, texts = [number for number, _ in answers], [schema.text(answer) for _, answer in answers]

        async def answer(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(_ANSWERED, numbers)
                askers = await connection.fetch(_ANSWER, numbers, texts)
                await connection.execute(_NOTIFY, sorted({str(row[0]) for row in askers}))

        await self._database.run(answer)

    def when_asked(self, told: Callable[[], None]) -> None:
        """Call `told` when this node was asked or answered."""

        def heard(instance: str | None) -> None:
            if instance in (None, str(self._instance)):
                told()

        self._announcements.hear(_CHANNEL, heard)

    async def list(self) -> tuple[Node, ...]:
        """Return the nodes that live."""

        async def read(connection: Connection) -> tuple[Node, ...]:
            return tuple(
                Node(**{**row, "top": json.loads(row["top"])})
                for row in await connection.fetch(_LIST, self._instance)
            )

        return await self._database.run(read)

    async def leave(self) -> None:
        """End the life of this node."""

        async def leave(connection: Connection) -> None:
            await connection.execute(_LEAVE, self._instance)

        await self._database.run(leave)

    async def close(self) -> None:
        """Close what is open."""
        await self._owners.finish()
        if self._alive is not None:
            await self._alive.close()

    async def _find_owners(self, client_ids: Sequence[str]) -> Sequence[Owner | None]:
        now = int(self._clock() * 1000)

        async def read(connection: Connection) -> Sequence[Owner | None]:
            rows = await connection.fetch(_OWNERS, self._instance, client_ids, now)
            owners = {row["client_id"]: Owner(row["username"]) for row in rows}
            return [owners.get(client_id) for client_id in client_ids]

        return await self._database.run(read)


async def _total(connection: Connection, conditions: Conditions) -> int:
    """Count the rows, or estimate how many there are: counting a million takes 0.2 s."""
    counted, is_exact = await _counted(connection, conditions.filters, *conditions.filter_values)
    if is_exact or conditions.filters:
        return counted
    told = int(await connection.fetchval(_TOTAL))
    return max(counted, told + await _left_behind(connection)) if told else counted


async def _left_behind(connection: Connection) -> int:
    """Count the sessions that nodes which have gone have left."""
    return (await _counted(connection, " WHERE owner = $1", _NOBODY))[0]


async def _counted(connection: Connection, where: str, *values: Any) -> tuple[int, bool]:
    """Return how many rows there are, and whether that was counted. Above `_COUNTED` it is an estimate."""
    matching = f"FROM proxyproto_rs.client_session{where}"
    counted: int = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT {matching} LIMIT {_COUNTED + 1}) AS counted",  # noqa: S608
        *values,
    )
    if counted <= _COUNTED:
        return counted, True
    estimate = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT {matching}", *values)
    return max(counted, int(json.loads(estimate)[0]["Plan"]["Plan Rows"])), False


def affected(tag: str) -> int:
    """Return the number in a command tag such as "DELETE 3"."""
    return int(tag.rpartition(" ")[2])
