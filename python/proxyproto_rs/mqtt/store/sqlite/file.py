"""The SQLite file: where it is, how it is made, and whether it can be used."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..examined import Examined
from ..protocol import StoreError
from . import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

_BUSY = 5.0  # seconds to wait for another process that writes the same file
_READ_AND_WRITE = os.R_OK | os.W_OK


def sqlite_path(setting: str | None, environ: Mapping[str, str] | None = None) -> str:
    """Return the file that the key `store` names. Without the key it is broker.db where services keep their state.

    That place is systemd's `$STATE_DIRECTORY` (the first of several), or else
    `$XDG_STATE_HOME/proxyproto-rs`.
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


def make_file(path: str) -> None:
    """Make the file and its folder if there are none. Raises OSError if it cannot be made, read or written.

    A file that is there is not opened. This process may have it open already, and closing it would drop SQLite's
    locks (sqlite.org/howtocorrupt.html, 2.2): the next process that ends would take itself for the last one, and
    delete the log that we write to.
    """
    file = Path(path).resolve()
    if not file.exists():
        _refuse_parent(file)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # Only the owner may read names and addresses. SQLite gives its other files the mode of this one.
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _refuse(file)


def check_file(path: str) -> None:
    """Check that a store can be opened there, and make nothing. Raises StoreError."""
    if path == ":memory:":
        return
    file = Path(path).resolve()
    try:
        if not file.exists():
            _refuse_parent(file)
            return
        _refuse(file)
        uri = f"file:{quote(str(file))}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            schema.refuse_newer(db)
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    except (OSError, sqlite3.Error, ValueError) as wrong:
        raise not_opened(path, wrong) from None


def migrate_file(path: str) -> int:
    """Make the file and its tables, or bring them up to date. Return the version before; 0 is none. Raises StoreError."""
    try:
        if path != ":memory:":
            make_file(path)
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            return schema.create(db)
    except (OSError, sqlite3.Error, ValueError) as wrong:
        raise not_opened(path, wrong) from None


def examine_file(path: str) -> Examined:
    """Look at a store's file. It changes nothing. Raises StoreError."""
    check_file(path)
    server = f"SQLite {sqlite3.sqlite_version}"
    file = Path(path).resolve()
    if path == ":memory:" or not file.exists():
        return Examined(path, server, 0, schema.VERSION)
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_BUSY, isolation_level=None)
        ) as db:
            version = schema.refuse_newer(db)
            rows = {
                str(name): int(db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608 (our tables)
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            }
        parts = (file, Path(f"{file}-wal"))
        size = sum(part.stat().st_size for part in parts if part.exists())
    except (OSError, sqlite3.Error, ValueError) as wrong:
        raise not_opened(path, wrong) from None
    return Examined(path, server, version, schema.VERSION, rows=rows, bytes=size)


def not_opened(path: str, wrong: Exception) -> StoreError:
    """Return the error of a store that cannot be opened."""
    text = wrong.strerror if isinstance(wrong, OSError) else None
    return StoreError(f"store {path} cannot be opened: {text or wrong}")


def _refuse(file: Path) -> None:
    """Raise OSError if the file cannot be read and written."""
    if file.is_dir():
        raise _error(errno.EISDIR)
    if not os.access(file, _READ_AND_WRITE):
        raise _error(errno.EACCES)


def _refuse_parent(file: Path) -> None:
    """Raise OSError if no file can be made there, with the folders that are missing."""
    nearest = next(folder for folder in file.parents if folder.exists())
    if not nearest.is_dir():
        raise _error(errno.ENOTDIR)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _error(errno.EACCES)


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
