"""Times as logs write them: RFC 3339, in UTC, with milliseconds."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache


def rfc3339(seconds: float) -> str:
    """Write a time, in seconds since 1970, as `2023-11-14T22:13:20.062Z`."""
    second, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=2)  # a log writes many lines in one second
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
