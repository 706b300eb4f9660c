"""Knowing uvloop when we are on it."""

from __future__ import annotations

import asyncio
import sys


def runs_uvloop() -> bool:
    """Whether the caller runs on a uvloop."""
    if "uvloop" not in sys.modules:
        return False
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    return any(base.__module__.partition(".")[0] == "uvloop" for base in type(loop).__mro__)
