"""Turns an UnauthorizedQuery into SQL."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...model.networks import covers, parse_network

if TYPE_CHECKING:
    from collections.abc import Callable

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
            network = query.network if column == "ip_address" else None
            clauses.append(_contains(column) if network is None else "is_inside(ip_address, ?)")
            values.append(_pattern(text) if network is None else str(network))
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


def is_inside(address: str, network: str) -> bool:
    """Whether an address is in a network: the function of that name in the WHERE clause."""
    return _covers(network)(address)


@lru_cache(maxsize=16)
def _covers(network: str) -> Callable[[str], bool]:
    return covers(parse_network(network))


def _contains(column: str) -> str:
    return f"{column} LIKE ? ESCAPE '\\'"


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
