"""Replaces `${NAME}` and `${NAME:default}` inside texts, as TBMQ's file does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Substitution:
    """The resulting text, the variables it names, and those with neither a value nor a default."""

    text: str
    used: tuple[str, ...]
    unset: tuple[str, ...]


def substitute(text: str, environ: Mapping[str, str]) -> Substitution:
    """Put the values of variables in. References inside a value stay as they are. An empty value is a value."""
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
