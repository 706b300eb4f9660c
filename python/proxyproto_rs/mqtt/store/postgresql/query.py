"""Turns an UnauthorizedQuery into PostgreSQL's SQL."""

from __future__ import annotations

from typing import Any

from ...model.records import UnauthorizedQuery
from .schema import text

_SUBSTRINGS = ("client_id", "ip_address", "username", "reason")
_EXACT = ("reason_code", "listener")
_LISTS = (("password_provided", "password_provided_list"), ("tls_used", "tls_used_list"))
_TIMES = (("ts >=", "start_time"), ("ts <=", "end_time"))
_SEARCHED = ("client_id", "ip_address", "username", "reason")
"""The columns that `text_search` searches."""


def where(query: UnauthorizedQuery) -> tuple[str, list[Any]]:
    """Return the WHERE clause, which is empty or has a leading space, and its values."""
    clauses: list[str] = []
    values: list[Any] = []

    def place(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    if query.text_search:
        wanted = place(containing(query.text_search))
        clauses.append("(" + " OR ".join(f"{column} ILIKE {wanted}" for column in _SEARCHED) + ")")
    for column in _SUBSTRINGS:
        if part := getattr(query, column):
            network = query.network if column == "ip_address" else None
            clauses.append(
                f"{column} ILIKE {place(containing(part))}"
                if network is None
                else _inside(place(str(network)))
            )
    for column in _EXACT:
        if whole := getattr(query, column):
            clauses.append(f"{column} = {place(text(whole))}")
    for column, name in _LISTS:
        if one_of := getattr(query, name):
            clauses.append(f"{column} = ANY({place(list(one_of))}::boolean[])")
    for compared, name in _TIMES:
        if (time := getattr(query, name)) is not None:
            clauses.append(f"{compared} {place(time)}")
    return (" WHERE " + " AND ".join(clauses) if clauses else ""), values


def order(query: UnauthorizedQuery) -> str:
    """Return the ORDER BY clause. The primary key breaks ties, so that pages do not overlap."""
    # Paging has checked the column and the direction against its own lists, so they are not a stranger's text.
    # In SQLite no value is the least value. PostgreSQL must be told so.
    nulls = "NULLS FIRST" if query.sort_order == "ASC" else "NULLS LAST"
    return f" ORDER BY {query.sort_column} {query.sort_order} {nulls}, client_id, ip_address"


def _inside(network: str) -> str:
    # A client of a UNIX socket has a path, which is no inet.
    is_address = "ip_address ~ '^[0-9]+[.][0-9.]+$|^[0-9a-f]*:[0-9a-f:.]*$'"
    return f"CASE WHEN {is_address} THEN ip_address::inet <<= {network}::text::cidr ELSE false END"


def containing(part: str) -> str:
    """Return the pattern for LIKE of texts that hold this part."""
    escaped = text(part).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
