"""Colours on a terminal, and nowhere else. `NO_COLOR` (no-color.org) and ``TERM=dumb`` switch them off there too."""

from __future__ import annotations

import os
import re
from typing import TextIO


class Colours:
    """Colours for one stream. Each method returns the text as it is if the stream is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._on = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def bold(self, text: str) -> str:
        return self._in("1", text)

    def dim(self, text: str) -> str:
        return self._in("2", text)

    def good(self, text: str) -> str:
        return self._in("32", text)

    def bad(self, text: str) -> str:
        return self._in("31;1", text)

    def doubtful(self, text: str) -> str:
        return self._in("33", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text


def without_marks(text: str) -> str:
    """Return a text of the tables without the backticks around code."""
    return text.replace("`", "")


def shown(data: bytes, most: int = 64) -> str:
    """Return a stranger's bytes as printable ASCII, cut to `most` bytes."""
    text = ascii(data[:most].decode("latin-1"))[1:-1]
    return text if len(data) <= most else f"{text}... ({len(data)} bytes)"


def printable(text: str) -> str:
    """Escape what a terminal would obey: control characters, and marks that turn the direction of writing."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text) if not text.isprintable() else text


_UNPRINTABLE: re.Pattern[str] = re.compile(r"[^ -~]")
