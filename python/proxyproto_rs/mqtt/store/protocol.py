"""The interface of a store of unauthorized clients, blocks and login failures: `sqlite/` and `postgresql/` have it.

Every store must pass the contract tests in tests/mqtt/store/test_store.py. Nodes that share a store see each
other's rows, blocks (they poll `blocks`) and login failures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..model.paging import Page
from ..model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from .nodes import Nodes


class StoreError(Exception):
    """The store cannot be opened, read or written."""


class StoreUnavailable(StoreError):
    """The store does not answer now. The same call may succeed later.

    Rows and failures that are passed again, equal, are counted once, even if the store had taken them.
    """


class BlockChanges(NamedTuple):
    """What has changed since a revision."""

    revision: int
    """The newest revision. Pass it to the next call."""
    changed: tuple[BlockedClient, ...]
    removed: tuple[str, ...]
    """The keys of removed blocks."""


class Store(Protocol):
    """Every method raises StoreError, and nothing else, if the store fails. Times are milliseconds since 1970."""

    @property
    def clock(self) -> Callable[[], float]:
        """The time that all nodes of the store agree on, in seconds since 1970."""

    @property
    def nodes(self) -> Nodes | None:
        """What the nodes of the store know of each other; None if each knows only itself."""

    async def upsert_unauthorized(self, rows: Sequence[UnauthorizedClient]) -> None:
        """Add rows. A known row keeps its `first_ts`, adds the new `attempts`, and takes over all other fields."""

    async def clear_unauthorized(self, client_id: str, ip: str) -> None:
        """Delete the row of a client that has logged in from that address."""

    async def find_unauthorized(self, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
        """Find a page of rows."""

    async def delete_unauthorized(self, client_id: str | None, ip: str | None) -> int:
        """Delete the rows of a client id, an address, both together, or all (None, None). Return how many."""

    async def purge_unauthorized(self, before: int, max_rows: int) -> int:
        """Delete rows older than `before`, then the oldest rows above `max_rows`. Return how many."""

    async def put_block(self, block: BlockedClient) -> BlockedClient:
        """Add the block, or replace the one with its key. Return it with its new revision."""

    async def delete_block(self, key: str) -> bool:
        """Delete a block. Return whether there was one."""

    async def blocks(self, since_revision: int) -> BlockChanges:
        """Return what changed after a revision. 0 gives all blocks."""

    def when_blocks_change(self, told: Callable[[], None]) -> None:
        """Call `told` in the event loop, soon after another node has changed a block.

        A store that cannot tell never calls it: nodes poll `blocks` in any case.
        """

    async def add_failure(self, network: str, now: int, window: int) -> int:
        """Count a wrong login from `network`. Return how many there were in the last `window` ms, with this one."""

    async def close(self) -> None:
        """Write what waits, and close the store. A second call does nothing."""
