"""What a store of unauthorized clients, blocks and login failures must do; `sqlite` is the one that ships.

Any store passes the contract suite in tests/mqtt/test_store.py. Nodes that share one see each other's rows,
blocks (by polling `blocks`) and login failures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .paging import Page
    from .records import BlockedClient, UnauthorizedClient, UnauthorizedQuery


class StoreError(Exception):
    """The store cannot be opened, read or written."""


class BlockChanges(NamedTuple):
    """What has changed since a revision."""

    revision: int
    """The newest there is; ask with it the next time."""
    changed: tuple[BlockedClient, ...]
    removed: tuple[str, ...]
    """Keys."""


class Store(Protocol):
    """Every method raises StoreError, and nothing else, where the store fails. Times are ms since 1970."""

    async def upsert_unauthorized(self, rows: Sequence[UnauthorizedClient]) -> None:
        """Add rows. A known one keeps `first_ts`, adds up `attempts`, takes the rest."""

    async def clear_unauthorized(self, client_id: str, ip: str) -> None:
        """Forget the row: the client has logged in from that address."""

    async def find_unauthorized(self, query: UnauthorizedQuery) -> Page[UnauthorizedClient]:
        """Find a page of rows."""

    async def delete_unauthorized(self, client_id: str | None, ip: str | None) -> int:
        """Delete the rows of a client id, an address, both together, or all (None, None); return how many."""

    async def purge_unauthorized(self, before: int, max_rows: int) -> int:
        """Delete rows older than `before`, then the oldest over `max_rows`; return how many."""

    async def put_block(self, block: BlockedClient) -> BlockedClient:
        """Add or replace the block of that key; return it with its new revision."""

    async def delete_block(self, key: str) -> bool:
        """Delete the block; whether there was one."""

    async def blocks(self, since_revision: int) -> BlockChanges:
        """Everything that changed after a revision; 0 gives every block there is."""

    async def add_failure(self, network: str, now: int, window: int) -> int:
        """Count a wrong login from `network`; return how many the last `window` ms had, this one included."""

    async def close(self) -> None:
        """Write what waits, and close. A second call does nothing."""


def sqlite_path(setting: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The file that the key `store` means; without one, broker.db where services keep their state.

    `$STATE_DIRECTORY` is systemd's (the first of several); else `$XDG_STATE_HOME/proxyproto-rs`.
    """
    if setting is not None:
        return setting.removeprefix("sqlite:")
    environ = os.environ if environ is None else environ
    if state := environ.get("STATE_DIRECTORY"):
        return str(Path(state.split(":")[0]) / "broker.db")
    home = environ.get("XDG_STATE_HOME") or str(
        Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    )
    return str(Path(home) / "proxyproto-rs" / "broker.db")
