"""Patterns for strangers' text, matched in linear time by RE2. A crafted client id could make `re` hang."""

from __future__ import annotations

import re
from typing import Protocol

import re2  # type: ignore[import-untyped]


class Pattern(Protocol):
    """A compiled pattern."""

    def fullmatch(self, text: str) -> object | None:
        """Return something true if the whole of `text` matches."""


def compile_pattern(pattern: str) -> Pattern:
    """Compile an RE2 pattern. Raises ValueError with RE2's reason, also for look-around and back-references."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20  # bytes; a pattern that needs more is refused here instead of being slow later
    try:
        compiled: Pattern = re2.compile(pattern, options)
    except re2.error as wrong:
        detail = wrong.args[0] if wrong.args else wrong
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise ValueError(f"is not a pattern RE2 can match: {text}") from None
    return compiled


def compile_globs(globs: tuple[str, ...]) -> Pattern:
    """Compile several globs into one pattern. `*` is any text, `?` any one character; the rest stands for itself."""
    return compile_pattern("|".join(f"(?:{_translate(glob)})" for glob in globs))


def _translate(glob: str) -> str:
    wild = {"*": "(?s:.*)", "?": "(?s:.)"}
    return "".join(wild.get(character) or re.escape(character) for character in glob)
