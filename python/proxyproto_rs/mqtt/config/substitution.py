"""`${NAME}` and `${NAME:default}` inside texts, as in TBMQ's file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Substitution:
    """The text with values in it, the variables it names, and those without a value or a default."""

    text: str
    used: tuple[str, ...]
    unset: tuple[str, ...]


def substitute(text: str, environ: Mapping[str, str]) -> Substitution:
    """Put variables' values in. What they hold is not looked at again. An empty value is a value."""
    used: list[str] = []
    unset: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        used.append(name)
        if name in environ:
            return environ[name]
        if default is None:
            unset.append(name)
            return ""
        return default

    return Substitution(_REFERENCE.sub(value, text), tuple(used), tuple(unset))
