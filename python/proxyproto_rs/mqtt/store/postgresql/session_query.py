"""Turns a SessionQuery into PostgreSQL's SQL."""

from __future__ import annotations

from typing import Any

from ...model.networks import parse_address, parse_network
from ...model.records import BlockedClient
from ...model.session_query import Place, SessionQuery
from .query import containing
from .schema import text
from .session_rows import NO_ADDRESS

_OPERATORS = {
    "EQUAL": "=",
    "NOT_EQUAL": "<>",
    "GREATER": ">",
    "LESS": "<",
    "GREATER_OR_EQUAL": ">=",
    "LESS_OR_EQUAL": "<=",
}
_SORTED_BY = {
    "client_ip_adr": ("address", "inet"),
    "username": ("COALESCE(username, '')", "text"),
    "listener": ("listener", "text"),
    "node_id": ("node_id", "text"),
    "client_id": ("client_id", "text"),
    "connection_state": ("(NOT connected)", "boolean"),
    "clean_start": ("clean_start", "boolean"),
    "client_type": ("''::text", "text"),
}
"""The expression and its type, where they are not the column and a number."""


class Conditions:
    """The WHERE clause of a query, and its values."""

    def __init__(self, query: SessionQuery) -> None:
        self.values: list[Any] = []
        self._clauses: list[str] = []
        self._filter(query)
        self.filters: str = self._where()
        """The clause without the cursor. It is empty, or has a leading space."""
        self.filter_values: list[Any] = list(self.values)
        self._go_behind(query)
        self.rows: str = self._where()
        """The clause for the rows of the page."""

    def _where(self) -> str:
        return " WHERE " + " AND ".join(self._clauses) if self._clauses else ""

    def _place(self, value: Any, kind: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def _filter(self, query: SessionQuery) -> None:
        for column, part in (("client_id", query.text_search), ("username", query.username)):
            if part:
                self._clauses.append(f"{column} ILIKE {self._place(containing(part), 'text')}")
        if query.start_time is not None:
            self._clauses.append(f"connected_at >= {self._place(query.start_time, 'bigint')}")
        if query.end_time is not None:
            self._clauses.append(f"connected_at <= {self._place(query.end_time, 'bigint')}")
        states = {state == "CONNECTED" for state in query.connected_status_list}
        if len(states) == 1:
            self._clauses.append("connected" if states.pop() else "NOT connected")
        starts = set(query.clean_start_list)
        if len(starts) == 1:
            self._clauses.append("clean_start" if starts.pop() else "NOT clean_start")
        for column, names in (("node_id", query.node_id_list), ("listener", query.listener_list)):
            if names:
                self._clauses.append(
                    f"{column} = ANY({self._place([text(name) for name in names], 'text[]')})"
                )
        if query.subscriptions is not None:
            operator = _OPERATORS[query.subscription_operation]
            self._clauses.append(
                f"subscriptions_count {operator} {self._place(query.subscriptions, 'bigint')}"
            )
        if query.proxy_version is not None:
            self._clauses.append(f"proxy_version = {self._place(query.proxy_version, 'bigint')}")
        if query.client_type_list and "DEVICE" not in query.client_type_list:
            self._clauses.append("false")  # there is no other type
        if query.client_ip_address:
            self._filter_addresses(query.client_ip_address)

    def _filter_addresses(self, wanted: str) -> None:
        if "/" in wanted:
            self._clauses.append(f"address <<= {self._place(str(parse_network(wanted)), 'inet')}")
            self._clauses.append(f"address <> '{NO_ADDRESS}'")
        else:
            self._clauses.append(f"client_ip_adr ILIKE {self._place(containing(wanted), 'text')}")

    def _go_behind(self, query: SessionQuery) -> None:
        place = query.place
        if place is None:
            return
        expression, kind = sorted_by(query)
        wanted = self._place(value_of(query, place), kind)
        client_id = self._place(text(place.client_id), "text")
        follows = "<" if query.sort_order == "DESC" else ">"
        # The first part is one that an index can begin at.
        self._clauses.append(f"{expression} {follows}= {wanted}")
        self._clauses.append(f"({expression} {follows} {wanted} OR client_id > {client_id})")


def order(query: SessionQuery) -> str:
    """Return the ORDER BY clause. Rows of equal values stand in the order of their client ids."""
    # Paging has checked the column and the direction against its own lists, so they are not a stranger's text.
    return f" ORDER BY {sorted_by(query)[0]} {query.sort_order}, client_id"


def sorted_by(query: SessionQuery) -> tuple[str, str]:
    """Return the expression by which the rows are sorted, and its type."""
    return _SORTED_BY.get(query.sort_column, (query.sort_column, "bigint"))


def value_of(query: SessionQuery, place: Place) -> Any:
    """Return the value of a place in the order of a query, as the database compares it."""
    value = place.value
    if query.sort_column == "connection_state":
        return value == "DISCONNECTED"
    if query.sort_column == "client_type":
        return ""
    if query.sort_column == "client_ip_adr":
        return NO_ADDRESS if parse_address(str(value)) is None else value
    return text(value) if isinstance(value, str) else value


def possibly_covered(block: BlockedClient) -> tuple[str, list[Any]]:
    """Return the end of a WHERE clause for the clients that the block may cover, and its values.

    RE2 and PostgreSQL read patterns differently. So a pattern may cover all.
    """
    if block.type == "REGEX":
        return "", []
    if block.type == "IP_ADDRESS":
        return f" AND address <<= $1::inet AND address <> '{NO_ADDRESS}'", [str(parse_network(block.value))]
    column = {"CLIENT_ID": "client_id", "USERNAME": "username"}[block.type]
    return f" AND {column} = $1", [text(block.value)]
