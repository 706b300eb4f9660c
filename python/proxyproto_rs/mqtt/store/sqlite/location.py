"""Where the SQLite file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
