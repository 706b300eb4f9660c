"""The directory in which the embedded broker keeps what survives it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STORE = "broker.redb"


def not_writable(directory: Path) -> str | None:
    """Return why the broker could not keep anything there; None if it could. Nothing is made.

    It does not ask whether another broker has it: `--check` judges the file of a broker that runs, too.
    """
    if not directory.exists():
        parent = directory.parent
        if not parent.is_dir():
            return f"{parent} is not a directory that is there: make it first"
        return None if _allows(parent, os.W_OK | os.X_OK) else f"may not be made in {parent}"
    if not directory.is_dir():
        return "must be a directory, as the broker makes files in it"
    if not _allows(directory, os.R_OK | os.W_OK | os.X_OK):
        return "the broker may not write there"
    store = directory / _STORE
    if store.exists() and not _allows(store, os.R_OK | os.W_OK):
        return f"the broker may not write to {_STORE} in it"
    return None


def _allows(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)
