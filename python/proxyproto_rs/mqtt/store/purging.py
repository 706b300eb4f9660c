"""Deletes what is old from a store, and says how much that is before."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.records import UnauthorizedQuery
from .protocol import Store

_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Purgeable:
    """How many rows there are to delete."""

    unauthorized: int
    """Refused clients that have not tried again since."""
    blocks: tuple[str, ...]
    """The keys of blocks that have expired before."""


async def purgeable(store: Store, before: int) -> Purgeable:
    """Count what is older than `before`, in milliseconds since 1970. Raises StoreError."""
    found = await store.find_unauthorized(UnauthorizedQuery(end_time=before - 1, page_size=1))
    changes = await store.blocks(0)
    expired = (block.key for block in changes.changed if 0 < block.expiration_time < before)
    return Purgeable(found.total_elements, tuple(expired))


async def purge(store: Store, before: int, what: Purgeable) -> tuple[int, int]:
    """Delete it. Return how many refused clients and blocks were deleted. Raises StoreError.

    A block that was prolonged meanwhile stays.
    """
    deleted = await store.purge_unauthorized(before, _NO_LIMIT)
    still = {block.key for block in (await store.blocks(0)).changed if 0 < block.expiration_time < before}
    blocks = 0
    for key in what.blocks:
        if key in still:
            blocks += await store.delete_block(key)
    return deleted, blocks
