"""Patterns over strangers' text, in linear time: RE2, because a crafted client id can make `re` hang."""

from __future__ import annotations

import re
from typing import Protocol

import re2  # type: ignore[import-untyped]


class Pattern(Protocol):
    """A compiled pattern."""

    def fullmatch(self, text: str) -> object | None:
        """Something true if the whole of `text` matches."""


def compile_pattern(pattern: str) -> Pattern:
    """Compile an RE2 pattern. ValueError with RE2's reason, for look-around and back-references too."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20  # bytes; a pattern that needs more is refused here, not slow later
    try:
        compiled: Pattern = re2.compile(pattern, options)
    except re2.error as wrong:
        detail = wrong.args[0] if wrong.args else wrong
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise ValueError(f"is not a pattern RE2 can match: {text}") from None
    return compiled


def compile_globs(globs: tuple[str, ...]) -> Pattern:
    """One pattern for several globs: `*` any text, `?` any one character, everything else itself."""
    return compile_pattern("|".join(f"(?:{_translate(glob)})" for glob in globs))


def _translate(glob: str) -> str:
    wild = {"*": "(?s:.*)", "?": "(?s:.)"}
    return "".join(wild.get(character) or re.escape(character) for character in glob)
