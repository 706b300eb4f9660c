"""Opens the store that the configuration names: a SQLite file, or a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from .examined import Examined
from .protocol import Store, StoreError
from .sqlite.file import check_file, examine_file, migrate_file, sqlite_path
from .sqlite.schema import VERSION
from .sqlite.store import SqliteStore

_POSTGRESQL = "postgresql://"


async def open_store(setting: str | None, file: str | None = None) -> Store:
    """Open the store of the key `store`, or of the key `store_file`, whose file holds what `store` would.

    Raises StoreError if it cannot be opened or written, or if an extra is missing.
    """
    setting = _setting(setting, file)
    if setting is None or not setting.startswith(_POSTGRESQL):
        return SqliteStore(sqlite_path(setting))
    try:
        from .postgresql.store import PostgresStore
    except ModuleNotFoundError as missing:
        raise _without_extra(missing) from None
    return await PostgresStore.open(setting)


async def check_store(setting: str | None, file: str | None = None) -> None:
    """Check that the store can be opened, and make nothing. Raises StoreError."""
    setting = _setting(setting, file)
    if setting is None or not setting.startswith(_POSTGRESQL):
        check_file(sqlite_path(setting))
        return
    try:
        from .postgresql.database import check
    except ModuleNotFoundError as missing:
        raise _without_extra(missing) from None
    await check(setting)


async def migrate_store(setting: str | None, file: str | None = None) -> tuple[int, int]:
    """Make the tables, or bring them up to date. Return the version before (0 is none) and now. Raises StoreError."""
    setting = _setting(setting, file)
    if setting is None or not setting.startswith(_POSTGRESQL):
        return migrate_file(sqlite_path(setting)), VERSION
    try:
        from .postgresql.database import migrate
        from .postgresql.schema import VERSION as NOW
    except ModuleNotFoundError as missing:
        raise _without_extra(missing) from None
    return await migrate(setting), NOW


async def examine_store(setting: str | None, file: str | None = None) -> Examined:
    """Look at a store: its version, what may be done with it, its clock and its size. Raises StoreError."""
    setting = _setting(setting, file)
    if setting is None or not setting.startswith(_POSTGRESQL):
        return examine_file(sqlite_path(setting))
    try:
        from .postgresql.database import examine
    except ModuleNotFoundError as missing:
        raise _without_extra(missing) from None
    return await examine(setting)


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


def _without_extra(missing: ModuleNotFoundError) -> StoreError:
    return StoreError(f'store postgresql:// needs {missing.name}: pip install "proxyproto_rs[postgres]"')
