"""Turns an UnauthorizedQuery into SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...model.records import UnauthorizedQuery

_SUBSTRINGS = ("client_id", "ip_address", "username", "reason")
_EXACT = ("reason_code", "listener")
_LISTS = (("password_provided", "password_provided_list"), ("tls_used", "tls_used_list"))
_SEARCHED = ("client_id", "ip_address", "username", "reason")
"""The columns that `text_search` searches."""


def where(query: UnauthorizedQuery) -> tuple[str, list[Any]]:
    """Return the WHERE clause, which is empty or has a leading space, and its values."""
    clauses: list[str] = []
    values: list[Any] = []
    if query.text_search:
        clauses.append("(" + " OR ".join(_contains(column) for column in _SEARCHED) + ")")
        values += [_pattern(query.text_search)] * len(_SEARCHED)
    for column in _SUBSTRINGS:
        if text := getattr(query, column):
            clauses.append(_contains(column))
            values.append(_pattern(text))
    for column in _EXACT:
        if text := getattr(query, column):
            clauses.append(f"{column} = ?")
            values.append(text)
    for column, name in _LISTS:
        if wanted := getattr(query, name):
            clauses.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            values += [int(value) for value in wanted]
    if query.start_time is not None:
        clauses.append("ts >= ?")
        values.append(query.start_time)
    if query.end_time is not None:
        clauses.append("ts <= ?")
        values.append(query.end_time)
    return (" WHERE " + " AND ".join(clauses) if clauses else ""), values


def order(query: UnauthorizedQuery) -> str:
    """Return the ORDER BY clause. The primary key breaks ties, so that pages do not overlap."""
    # Paging has checked the column and the direction against its own lists, so they are not a stranger's text.
    return f" ORDER BY {query.sort_column} {query.sort_order}, client_id, ip_address"


def _contains(column: str) -> str:
    return f"{column} LIKE ? ESCAPE '\\'"


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
