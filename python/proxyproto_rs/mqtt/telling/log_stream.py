"""The stream of the log. Lines that belong to one turn of the event loop are written together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    _Stream = logging.StreamHandler[TextIO]
else:
    _Stream = logging.StreamHandler  # Python 3.10 cannot subscript it

_AT_ONCE = 1 << 16  # characters; more than these do not wait


class LogStream(_Stream):
    """Gathers the event loop's lines below WARNING until its next turn, and then writes them at once.

    Each write is a system call, and every login has two lines. A warning is written at once, behind what was said
    before it, and so is what other threads say.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._characters = 0
        self._flushes: AbstractEventLoop | None = None
        """Writes them at its next turn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or keep it for the next turn."""
        try:
            line = self.format(record) + self.terminator
        except Exception:
            self.handleError(record)
            return
        self._lines.append(line)
        self._characters += len(line)
        loop = None
        if record.levelno < logging.WARNING and self._characters < _AT_ONCE:
            with contextlib.suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        if loop is None:
            self._write(record)
        elif loop is not self._flushes:
            self._flushes = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is kept."""
        with self.lock or contextlib.nullcontext():
            if self._lines:
                self._write(None)

    def close(self) -> None:
        """Write what is kept, and be used no more."""
        self.flush()
        super().close()

    def _write(self, record: logging.LogRecord | None) -> None:
        text = "".join(self._lines)
        self._lines.clear()
        self._characters = 0
        self._flushes = None
        try:
            self.stream.write(text)
            self.stream.flush()
        except Exception:  # a log that cannot be written must not stop what it tells of
            self.handleError(record or logging.makeLogRecord({"msg": text}))
