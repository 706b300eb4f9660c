"""What a closed Listener has in place of its acceptor."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ._core import Acceptor


class ClosedAcceptor:
    """Has nothing to take any more, and knows the numbers."""

    def __init__(self, acceptor: Acceptor) -> None:
        acceptor.close()
        self.stats = acceptor.stats
        self.options = acceptor.options

    def take(self) -> NoReturn:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def take_all(self, _most: int, /) -> NoReturn:
        self.take()

    def take_refusals(self) -> tuple[list[Any], list[Any], int]:
        return [], [], 0

    def update(self, _changes: dict[str, Any]) -> NoReturn:
        self.take()

    def drain(self) -> None:
        pass
