"""Pages of tables, and the names of their columns in JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

Row = TypeVar("Row")

SortOrder = Literal["ASC", "DESC"]
MAX_PAGE_SIZE = 1000
LARGEST_INTEGER = 2**63 - 1
"""Stores keep numbers in 64 bits."""
_LAST_PAGE = LARGEST_INTEGER // MAX_PAGE_SIZE - 1


_IF_ANY = {"json": "if any"}
"""Marks a field that JSON shows only with a value: TBMQ's answers do not have it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a table, and how many there are in all."""

    data: tuple[Row, ...]
    total_pages: int
    total_elements: int
    has_next: bool
    cursor: str | None = dataclasses.field(default=None, metadata=_IF_ANY)
    """Gives the rows behind this page, if it is not the last. Only sessions have it."""


@dataclass(frozen=True, kw_only=True)
class Paging:
    """A query for a page, as TBMQ's lists take it. Times are milliseconds since 1970, and both ends are included.

    Raises ValueError for a value out of range, with a text for the person who asked.
    """

    page_size: int = 50
    page: int = 0
    text_search: str | None = None
    sort_property: str | None = None
    sort_order: SortOrder = "DESC"
    start_time: int | None = None
    end_time: int | None = None

    sort_properties: ClassVar[tuple[str, ...]] = ()
    """The columns that a list of this kind can be sorted by. The first is the default."""

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"page_size must be between 1 and {MAX_PAGE_SIZE} (got {self.page_size})")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
                raise ValueError(f"{field.name} must fit into 64 bits")
        if self.page < 0:
            raise ValueError(f"page must be 0 or more (got {self.page})")
        if self.page > _LAST_PAGE:
            raise ValueError(f"page must be {_LAST_PAGE} or less (got {self.page})")
        if self.sort_order not in ("ASC", "DESC"):
            raise ValueError(f"sort_order must be ASC or DESC (got {self.sort_order!r})")
        if self.sort_property is not None and self.sort_property not in self.sort_properties:
            raise ValueError(
                f"sort_property must be one of {', '.join(self.sort_properties)} (got {self.sort_property!r})"
            )

    @property
    def sort_column(self) -> str:
        """The column to sort by."""
        return self.sort_property or self.sort_properties[0]

    def page_of(self, data: tuple[Row, ...], total: int) -> Page[Row]:
        """Return `data` as the requested page of `total` rows."""
        pages = -(-total // self.page_size)
        return Page(data, pages, total, self.page + 1 < pages)


def camel_case(name: str) -> str:
    """Return a Python name as JSON has it: `client_id` becomes `clientId`."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def to_json(record: Any) -> dict[str, Any]:
    """Return a record's fields under their JSON names. Nested records and tuples are converted too."""
    values = ((field, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {
        camel_case(field.name): _plain(value)
        for field, value in values
        if value is not None or field.metadata != _IF_ANY
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
