"""Answers a BlockQuery from the blocks in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...model.paging import Page
    from ...model.records import BlockedClient, BlockQuery, BlockStatus


def select(
    blocks: Iterable[BlockedClient], query: BlockQuery, status_of: Callable[[BlockedClient], BlockStatus]
) -> Page[BlockedClient]:
    """Return the requested page of the blocks that match, each with its status."""
    rows = [block for block in blocks if _matches(block, query)]
    if query.status_list:
        rows = [block for block in rows if status_of(block) in query.status_list]
    rows.sort(key=lambda block: block.key)
    rows.sort(key=lambda block: _sortable(block, query.sort_column), reverse=query.sort_order == "DESC")
    start = query.page * query.page_size
    page = rows[start : start + query.page_size]
    return query.page_of(tuple(replace(block, status=status_of(block)) for block in page), len(rows))


def _matches(block: BlockedClient, query: BlockQuery) -> bool:
    if query.text_search:
        text = query.text_search.lower()
        if text not in block.value.lower() and text not in (block.description or "").lower():
            return False
    return (
        (not query.value or query.value.lower() in block.value.lower())
        and (not query.type_list or block.type in query.type_list)
        and (not query.regex_match_target_list or block.regex_match_target in query.regex_match_target_list)
        and (query.start_time is None or block.expiration_time >= query.start_time)
        and (query.end_time is None or block.expiration_time <= query.end_time)
    )


def _sortable(block: BlockedClient, column: str) -> Any:
    value = getattr(block, column)
    return "" if value is None else value
