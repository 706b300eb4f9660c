"""Tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def render(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a title, a head and aligned rows. None is shown as "-", unprintable characters as escapes."""
    cells = [[_shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [title, _line(columns, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(row, widths) for row in cells] or ["(none)"]
    return "\n".join(f"  {line}" if index else line for index, line in enumerate(lines)) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]
