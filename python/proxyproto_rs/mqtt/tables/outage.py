"""Logs that the store does not answer: once when it begins, and once when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

    from ..store.protocol import StoreError


class Outage:
    """What one table says of the store. `consequence` and `over` are whole sentences for the log."""

    def __init__(self, logger: logging.Logger, consequence: str, over: str) -> None:
        self._logger = logger
        self._consequence = consequence
        self._over = over
        self._lasts = False

    def goes_on(self, wrong: StoreError) -> None:
        """Note that the store has not answered."""
        if not self._lasts:
            self._lasts = True
            self._logger.error("%s: %s", self._consequence, wrong)

    def is_over(self) -> None:
        """Note that the store has answered."""
        if self._lasts:
            self._lasts = False
            self._logger.warning("%s", self._over)
