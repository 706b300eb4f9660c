"""What a closed Listener has in place of its acceptor, whose wake fd is open for as long as it lives."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ._core import Acceptor


class ClosedAcceptor:
    """Has nothing to take, and knows the last numbers."""

    def __init__(self, acceptor: Acceptor) -> None:
        acceptor.close()
        self._stats: tuple[dict[str, int], int, int, int, int] | None = None
        with contextlib.suppress(RuntimeError):  # a forked child has no numbers
            self._stats = acceptor.stats()
        self._options = acceptor.options()

    def take(self) -> NoReturn:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def take_all(self, _most: int, /) -> NoReturn:
        self.take()

    def take_refusals(self) -> tuple[list[Any], list[Any], int]:
        return [], [], 0

    def stats(self) -> tuple[dict[str, int], int, int, int, int]:
        if self._stats is None:
            self.take()
        return self._stats

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def update(self, _changes: dict[str, Any]) -> NoReturn:
        self.take()

    def drain(self) -> None:
        pass
