"""Opens the store that the configuration names: a SQLite file, or a PostgreSQL database."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from .examined import Examined
from .protocol import Store, StoreError
from .sqlite.file import check_file, examine_file, migrate_file, sqlite_path
from .sqlite.schema import VERSION
from .sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

_POSTGRESQL = "postgresql://"


async def open_store(setting: str | None, file: str | None = None) -> Store:
    """Open the store of the key `store`, or of the key `store_file`, whose file holds what `store` would.

    Raises StoreError if it cannot be opened or written, or if an extra is missing.
    """
    dsn, path = _place(setting, file)
    if dsn is None:
        return SqliteStore(path)
    with _extra():
        from .postgresql.store import PostgresStore
    return await PostgresStore.open(dsn)


async def check_store(setting: str | None, file: str | None = None) -> None:
    """Check that the store can be opened, and make nothing. Raises StoreError."""
    dsn, path = _place(setting, file)
    if dsn is None:
        check_file(path)
        return
    with _extra():
        from .postgresql.database import check
    await check(dsn)


async def migrate_store(setting: str | None, file: str | None = None) -> tuple[int, int]:
    """Make the tables, or bring them up to date. Return the version before (0 is none) and now. Raises StoreError."""
    dsn, path = _place(setting, file)
    if dsn is None:
        return migrate_file(path), VERSION
    with _extra():
        from .postgresql.database import migrate
        from .postgresql.schema import VERSION as NOW
    return await migrate(dsn), NOW


async def examine_store(setting: str | None, file: str | None = None) -> Examined:
    """Look at a store: its version, what may be done with it, its clock and its size. Raises StoreError."""
    dsn, path = _place(setting, file)
    if dsn is None:
        return examine_file(path)
    with _extra():
        from .postgresql.database import examine
    return await examine(dsn)


def _place(setting: str | None, file: str | None) -> tuple[str | None, str]:
    """Return the connection URI of a PostgreSQL, or None and the path of a SQLite file."""
    setting = _setting(setting, file)
    if setting is not None and setting.startswith(_POSTGRESQL):
        return setting, ""
    return None, sqlite_path(setting)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as missing:
        raise StoreError(
            f'store postgresql:// needs {missing.name}: pip install "proxyproto_rs[postgres]"'
        ) from None


def _setting(setting: str | None, file: str | None) -> str | None:
    if file is None:
        return setting
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        said = wrong.strerror if isinstance(wrong, OSError) else "is not UTF-8 text"
        raise StoreError(f"store_file {file} cannot be read: {said}") from None
    if not text.startswith(("sqlite:", _POSTGRESQL)):
        raise StoreError(f"store_file {file} must hold sqlite:PATH or postgresql://USER@HOST/DATABASE")
    return text
