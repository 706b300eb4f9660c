"""Which sessions to list, in which order, and where a page ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast, get_args

from .networks import parse_network
from .paging import LARGEST_INTEGER, Paging, SortOrder  # noqa: F401 (the inherited __init__ is annotated with it)
from .session_record import SessionRecord

Comparison = Literal["EQUAL", "NOT_EQUAL", "GREATER", "LESS", "GREATER_OR_EQUAL", "LESS_OR_EQUAL"]
SortValue = str | int | bool


class Place(NamedTuple):
    """A row in the order of a query: the value that it is sorted by, and its client id."""

    value: SortValue
    client_id: str


@dataclass(frozen=True, kw_only=True)
class SessionQuery(Paging):
    """Which sessions to list.

    `text_search` matches anywhere in the client id. Times limit the start of the connection.

    `client_ip_address` matches anywhere in the address, or is a network if it holds a "/".

    `cursor` is the `cursor` of an earlier page: the rows behind that page come. It costs the same for every page,
    while a high `page` reads all rows before it.
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
    cursor: str | None = None

    sort_properties: ClassVar[tuple[str, ...]] = (
        "connected_at", "client_id", "client_ip_adr", "username", "listener", "connection_state",
        "disconnected_at", "subscriptions_count", "clean_start", "node_id", "client_type", "proxy_version",
        "last_seen", "bytes_in", "bytes_out",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subscription_operation not in get_args(Comparison):
            raise ValueError(
                f"subscription_operation must be one of {', '.join(get_args(Comparison))}"
                f" (got {self.subscription_operation!r})"
            )
        if self.client_ip_address is not None and "/" in self.client_ip_address:
            try:
                parse_network(self.client_ip_address)
            except ValueError as wrong:
                raise ValueError(f"client_ip_address {wrong}") from None
        if self.cursor is not None and self.page:
            raise ValueError(f"page must be 0 beside a cursor (got {self.page})")
        _ = self.place

    @property
    def place(self) -> Place | None:
        """Where the page begins, by its cursor. Raises ValueError for a cursor of another query."""
        if self.cursor is None:
            return None
        try:
            column, order, value, client_id = json.loads(base64.urlsafe_b64decode(self.cursor))
        except (ValueError, TypeError):
            raise ValueError("cursor must be that of an earlier page") from None
        if (column, order) != (self.sort_column, self.sort_order):
            raise ValueError("cursor must be that of a page in the same order")
        # A bool is an int too, and is no time or number.
        if type(value) is not _TYPES.get(self.sort_column, int) or not isinstance(client_id, str):
            raise ValueError("cursor must be that of an earlier page")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError("cursor must be that of an earlier page")
        return Place(cast("SortValue", value), client_id)

    def cursor_behind(self, record: SessionRecord) -> str:
        """Return the cursor of a page whose last row is this one."""
        value = SORT_VALUES[self.sort_column](record)
        place = json.dumps([self.sort_column, self.sort_order, value, record.client_id])
        return base64.urlsafe_b64encode(place.encode()).decode()


def state_of(record: SessionRecord) -> str:
    """Return TBMQ's word for whether the client is connected."""
    return "CONNECTED" if record.connected else "DISCONNECTED"


SORT_VALUES: dict[str, Callable[[SessionRecord], SortValue]] = {
    "connected_at": lambda record: record.connected_at,
    "client_id": lambda record: record.client_id,
    "client_ip_adr": lambda record: record.connection.client[0],
    "username": lambda record: record.username or "",
    "listener": lambda record: record.connection.listener,
    "connection_state": state_of,
    "disconnected_at": lambda record: record.disconnected_at,
    "subscriptions_count": lambda record: record.subscriptions_count,
    "clean_start": lambda record: record.clean_start,
    "node_id": lambda record: record.node_id,
    "client_type": lambda _: "DEVICE",
    "proxy_version": lambda record: record.connection.proxy_version,
    "last_seen": lambda record: record.last_seen,
    "bytes_in": lambda record: record.traffic.bytes_in,
    "bytes_out": lambda record: record.traffic.bytes_out,
}
"""What each column of a list is sorted by. An address is sorted as a number, not as its text."""

_TYPES: dict[str, type] = {
    **dict.fromkeys(
        ("client_id", "client_ip_adr", "username", "listener", "connection_state", "node_id", "client_type"),
        str,
    ),
    "clean_start": bool,
}
"""The types of these values, where they are not numbers."""
