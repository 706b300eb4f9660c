"""Selects the sessions of a list, by TBMQ's filters and ours."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..model.networks import covers, parse_address, parse_network
from ..model.paging import Paging, SortOrder  # noqa: F401 (the inherited __init__ is annotated with it)
from ..model.session_record import SessionRecord

Comparison = Literal["EQUAL", "NOT_EQUAL", "GREATER", "LESS", "GREATER_OR_EQUAL", "LESS_OR_EQUAL"]

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "EQUAL": operator.eq,
    "NOT_EQUAL": operator.ne,
    "GREATER": operator.gt,
    "LESS": operator.lt,
    "GREATER_OR_EQUAL": operator.ge,
    "LESS_OR_EQUAL": operator.le,
}


@dataclass(frozen=True, kw_only=True)
class SessionQuery(Paging):
    """Which sessions to list.

    `text_search` matches anywhere in the client id. Times limit the start of the connection.

    `client_ip_address` matches anywhere in the address, or is a network if it holds a "/".
    """

    connected_status_list: tuple[Literal["CONNECTED", "DISCONNECTED"], ...] = ()
    client_type_list: tuple[str, ...] = ()
    clean_start_list: tuple[bool, ...] = ()
    node_id_list: tuple[str, ...] = ()
    subscriptions: int | None = None
    subscription_operation: Comparison = "EQUAL"
    client_ip_address: str | None = None
    username: str | None = None
    listener_list: tuple[str, ...] = ()
    proxy_version: int | None = None

    sort_properties: ClassVar[tuple[str, ...]] = (
        "connected_at", "client_id", "client_ip_adr", "username", "listener", "connection_state",
        "disconnected_at", "subscriptions_count", "clean_start", "node_id", "client_type", "proxy_version",
        "last_seen", "bytes_in", "bytes_out",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subscription_operation not in _COMPARE:
            raise ValueError(
                f"subscription_operation must be one of {', '.join(_COMPARE)}"
                f" (got {self.subscription_operation!r})"
            )
        if self.client_ip_address is not None and "/" in self.client_ip_address:
            try:
                parse_network(self.client_ip_address)
            except ValueError as wrong:
                raise ValueError(f"client_ip_address {wrong}") from None


def matching(records: Iterable[SessionRecord], query: SessionQuery) -> list[SessionRecord]:
    """Return all records that match, in the query's order. Records with equal values are sorted by client id."""
    tests = list(_tests(query))
    found = [record for record in records if all(test(record) for test in tests)]
    found.sort(key=lambda record: record.client_id)
    key = _SORT_KEYS[query.sort_column]
    found.sort(key=key, reverse=query.sort_order == "DESC")
    return found


def _tests(query: SessionQuery) -> Iterable[Callable[[SessionRecord], bool]]:
    if (text := query.text_search) is not None:
        yield lambda record: text.lower() in record.client_id.lower()
    if (start := query.start_time) is not None:
        yield lambda record: record.connected_at >= start
    if (end := query.end_time) is not None:
        yield lambda record: record.connected_at <= end
    if query.connected_status_list:
        yield lambda record: _state(record) in query.connected_status_list
    if query.client_type_list and "DEVICE" not in query.client_type_list:
        yield lambda _: False  # there is no other type
    if query.clean_start_list:
        yield lambda record: record.clean_start in query.clean_start_list
    if query.node_id_list:
        yield lambda record: record.node_id in query.node_id_list
    if (count := query.subscriptions) is not None:
        compare = _COMPARE[query.subscription_operation]
        yield lambda record: compare(record.subscriptions_count, count)
    if (address := query.client_ip_address) is not None:
        yield _address_test(address)
    if (username := query.username) is not None:
        yield lambda record: username.lower() in (record.username or "").lower()
    if query.listener_list:
        yield lambda record: record.connection.listener in query.listener_list
    if (version := query.proxy_version) is not None:
        yield lambda record: record.connection.proxy_version == version


def _address_test(wanted: str) -> Callable[[SessionRecord], bool]:
    if "/" not in wanted:
        return lambda record: wanted.lower() in record.connection.client[0].lower()
    is_inside = covers(parse_network(wanted))
    return lambda record: is_inside(record.connection.client[0])


def _state(record: SessionRecord) -> str:
    return "CONNECTED" if record.connected else "DISCONNECTED"


def _address_key(record: SessionRecord) -> tuple[int, int, str]:
    host = record.connection.client[0]
    address = parse_address(host)
    return (address.version, int(address), host) if address is not None else (0, 0, host)


_SORT_KEYS: dict[str, Callable[[SessionRecord], Any]] = {
    "connected_at": lambda record: record.connected_at,
    "client_id": lambda record: record.client_id,
    "client_ip_adr": _address_key,
    "username": lambda record: record.username or "",
    "listener": lambda record: record.connection.listener,
    "connection_state": _state,
    "disconnected_at": lambda record: record.disconnected_at,
    "subscriptions_count": lambda record: record.subscriptions_count,
    "clean_start": lambda record: record.clean_start,
    "node_id": lambda record: record.node_id,
    "client_type": lambda _: "DEVICE",
    "proxy_version": lambda record: record.connection.proxy_version,
    "last_seen": lambda record: record.traffic.last_seen,
    "bytes_in": lambda record: record.traffic.bytes_in,
    "bytes_out": lambda record: record.traffic.bytes_out,
}
