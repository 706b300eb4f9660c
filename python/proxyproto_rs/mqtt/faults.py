"""Our own faults, told once for each kind and minute: who finds one must not fill the disk with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_EVERY = 60.0
_KINDS = 100


class Faults:
    """Counts and logs exceptions that nobody expected."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.count: int = 0
        self._logger = logger
        self._clock = clock
        self._told: dict[str, float] = {}

    def note(self, wrong: BaseException, what: str) -> None:
        """Count it; write it with its traceback if its kind has not been written for a minute.

        `what` says in a line what it did to whom.
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
