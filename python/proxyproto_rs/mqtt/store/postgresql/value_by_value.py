"""Pages of sessions in the order of a column that has few values, such as the listener: one value after the other.

The rows of one value come by an index, in the order of their client ids. In one query the database could do that only if
both went in the same direction: otherwise it sorts all rows of a value, which takes a second for a million.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ...model.session_query import SessionQuery
from . import session_rows
from .schema import Connection, text
from .session_query import Conditions, sorted_by, value_of

_BOTH = ("connection_state", "clean_start")
"""These are true or false."""

_LISTED = ("listener", "node_id", "proxy_version", "subscriptions_count")
"""An index begins with each of these, so their values are found without reading the rows."""

_MOST_VALUES = 64  # each costs a query; nodes with names of their own for each start leave many


async def read(connection: Connection, query: SessionQuery, limit: int) -> list[Any] | None:
    """Read at most `limit` rows of a page. None if this is no such query, and the database shall sort.

    A part of a text is looked for in all rows at once; few are left to be sorted. A page by its number would need to know
    how many rows each value has.
    """
    is_text = query.text_search or query.username or query.client_ip_address
    if query.sort_column not in (*_BOTH, *_LISTED) or is_text or query.page:
        return None
    place = query.place
    begin = None if place is None else value_of(query, place)
    expression, kind = sorted_by(query)
    conditions = Conditions(query)
    values = conditions.filter_values
    equal = (
        f"{session_rows.SELECT}{conditions.filters}{' AND' if conditions.filters else ' WHERE'}"
        f" {expression} = ${len(values) + 1}::{kind}"
    )
    behind = f" AND client_id > ${len(values) + 2}::text"
    rows: list[Any] = []
    count = 0
    async for value in _values(connection, query, begin):
        count += 1
        if count > _MOST_VALUES:
            return None
        end = f" ORDER BY client_id LIMIT {limit - len(rows)}"
        if place is not None and value == begin:
            rows += await connection.fetch(equal + behind + end, *values, value, text(place.client_id))
        else:
            rows += await connection.fetch(equal + end, *values, value)
        if len(rows) == limit:
            break
    return rows


async def _values(connection: Connection, query: SessionQuery, begin: Any) -> AsyncIterator[Any]:
    """Yield the values of the column in the order of the query, from the cursor's on."""
    is_falling = query.sort_order == "DESC"
    if query.sort_column in _BOTH:
        both = (True, False) if is_falling else (False, True)
        for value in both if begin is None else both[both.index(begin) :]:
            yield value
        return
    expression, kind = sorted_by(query)
    # Column and direction are out of lists of our own.
    select = f"SELECT {expression} FROM proxyproto_rs.client_session"  # noqa: S608
    first = f" ORDER BY {expression} {query.sort_order} LIMIT 1"
    beyond = "<" if is_falling else ">"
    if begin is None:
        value = await connection.fetchval(select + first)
    else:
        value = await connection.fetchval(f"{select} WHERE {expression} {beyond}= $1::{kind}{first}", begin)
    while value is not None:
        yield value
        value = await connection.fetchval(f"{select} WHERE {expression} {beyond} $1::{kind}{first}", value)
