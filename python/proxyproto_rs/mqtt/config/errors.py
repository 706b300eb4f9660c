"""Errors of a configuration, in the form `file:line: key: what it must be (got ...)`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple["str | int", ...]
"""The place of a value: keys and list positions from the top of the file."""

_SECRET = re.compile(r"(^|_)(password|passphrase|secret|token)$", re.IGNORECASE)
_SHOWN = 100  # characters of a wrong value
MASK = "***"
# A password that is not percent-encoded may hold any sign, also "/" and "@". So the last "@" ends it.
_CREDENTIALS = re.compile(r"://\S*@")
_SECRET_OPTIONS = re.compile(
    r"(?<=[?&])((?:(?:ssl)?password|(?:api|access|auth)?[_-]?(?:key|token))=)[^&\s]*"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error. `origin` is a `file:line`, a variable's name, or empty."""

    origin: str
    path: Path
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin, dotted(self.path), self.text) if part)


class ConfigError(ValueError):
    """A configuration that cannot be used. `problems` holds all errors; the text has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """Write a path as in `listeners.tcp.bind` and `access[0].action`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def got(path: Path, value: Any) -> str:
    """Write the wrong value, to follow what it must be."""
    return f"(got {shown(path, value)})"


def shown(path: Path, value: Any) -> str:
    """Write a value for an error text: short, on one line, and never a secret."""
    if any(is_secret(part) for part in path):
        return MASK
    if isinstance(value, str):
        value = without_credentials(value)
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (TypeError, ValueError):
        text = json.dumps(str(value))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def without_credentials(text: str) -> str:
    """Mask the user and the passwords of the connection URIs in a text."""
    return _SECRET_OPTIONS.sub(rf"\1{MASK}", _CREDENTIALS.sub(f"://{MASK}@", text))


def is_secret(key: str | int) -> bool:
    """Whether values under this key are never shown."""
    return isinstance(key, str) and _SECRET.search(key) is not None
