"""Selects the sessions of a list, by TBMQ's filters and ours."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from ..model.networks import covers, parse_address, parse_network
from ..model.session_query import SORT_VALUES, Place, SessionQuery, state_of
from ..model.session_record import SessionRecord

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "EQUAL": operator.eq,
    "NOT_EQUAL": operator.ne,
    "GREATER": operator.gt,
    "LESS": operator.lt,
    "GREATER_OR_EQUAL": operator.ge,
    "LESS_OR_EQUAL": operator.le,
}


def matching(records: Iterable[SessionRecord], query: SessionQuery) -> list[SessionRecord]:
    """Return all records that match, in the query's order. Records with equal values are sorted by client id."""
    tests = list(_tests(query))
    found = [record for record in records if all(test(record) for test in tests)]
    found.sort(key=lambda record: record.client_id)
    value = SORT_VALUES[query.sort_column]
    key = _address_key if query.sort_column == "client_ip_adr" else _same
    found.sort(key=lambda record: key(value(record)), reverse=query.sort_order == "DESC")
    return found


def behind(records: list[SessionRecord], query: SessionQuery) -> list[SessionRecord]:
    """Return the records of `matching` behind the query's cursor."""
    place = query.place
    if place is None:
        return records
    value = SORT_VALUES[query.sort_column]
    key = _address_key if query.sort_column == "client_ip_adr" else _same
    wanted = key(place.value)
    follows = operator.lt if query.sort_order == "DESC" else operator.gt

    def is_behind(record: SessionRecord, place: Place = place) -> bool:
        own = key(value(record))
        return follows(own, wanted) or (own == wanted and record.client_id > place.client_id)

    return [record for record in records if is_behind(record)]


def _tests(query: SessionQuery) -> Iterable[Callable[[SessionRecord], bool]]:
    if (text := query.text_search) is not None:
        yield lambda record: text.lower() in record.client_id.lower()
    if (start := query.start_time) is not None:
        yield lambda record: record.connected_at >= start
    if (end := query.end_time) is not None:
        yield lambda record: record.connected_at <= end
    if query.connected_status_list:
        yield lambda record: state_of(record) in query.connected_status_list
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


def _address_key(host: Any) -> tuple[int, int, str]:
    address = parse_address(host)
    return (address.version, int(address), host) if address is not None else (0, 0, host)


def _same(value: Any) -> Any:
    return value
