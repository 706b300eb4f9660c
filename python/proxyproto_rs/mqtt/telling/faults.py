"""Logs our own faults, each kind once a minute, so that a client which triggers one cannot fill the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_EVERY = 60.0
_KINDS = 100


class Faults:
    """Counts and logs unexpected exceptions."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.count: int = 0
        self._logger = logger
        self._clock = clock
        self._told: dict[str, float] = {}

    def note(self, wrong: BaseException, what: str) -> None:
        """Count the exception. Log it with its traceback, unless its kind was logged within the last minute.

        `what` says in one line what the fault did, and to which client.
        """
        self.count += 1
        kind, now = _kind(wrong), self._clock()
        if now - self._told.get(kind, now - _EVERY) < _EVERY:
            return
        if len(self._told) >= _KINDS:
            self._told.clear()
        self._told[kind] = now
        self._logger.error("%s", what, exc_info=wrong)


def _kind(wrong: BaseException) -> str:
    trace = wrong.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(wrong).__name__} {where}"
