"""The check of passwords against a file, without stopping the event loop.

argon2 takes 0.1 s and releases the interpreter lock. So one worker thread checks passwords while the event loop serves.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet

from ..config import ConfigError, Problem
from ..config.errors import Path as ConfigPath
from .check_queue import CheckQueue
from .password_table import GoodLogins, PasswordFileError, PasswordTable, read_passwords


class PasswordChecker:
    """Checks passwords against a file of users and hashes. Raises PasswordFileError if the file cannot be read or used.

    Args:
        path: The file.
        remember: How long a good login is not checked again, in seconds. 0 checks every time.
        clock: For the memory of good logins.
    """

    named: ConfigPath = ("auth",)
    """The key of the configuration that names the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        remember: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path: Path = Path(path)
        self._clock = clock
        self._good = GoodLogins(remember)
        self._checks: dict[bytes, asyncio.Future[bool]] = {}
        self._table = read_passwords(self.path)
        self._queue = CheckQueue("mqtt-passwords")
        _open.add(self)

    def knows_user(self, username: str) -> bool:
        """Whether the file has the user."""
        return username in self._table.hashes

    async def check(
        self,
        username: str,
        password: str,
        *,
        address: str = "",
        patience: float | None = None,
        is_known: bool = False,
    ) -> bool:
        """Check a password. It takes as long for an unknown user as for a known one.

        A login that was good a short while ago is good at once. The others wait for their turn, by address.
        `patience` is how long such a login may wait, in seconds; None is for ever. `is_known` lets it go before those that
        are not.

        Raises:
            Refuse: `busy`: the password would not be checked in time.
        """
        table = self._table
        stored = table.hashes.get(username, "")
        fingerprint = self._good.fingerprint(username, password, stored)
        if stored and self._good.knows(username, fingerprint, self._clock()):
            return True
        # If the same login comes twice at once, as after a proxy's restart, it is checked once.
        check = self._checks.get(fingerprint)
        if check is None:
            check = asyncio.ensure_future(
                self._verify(table, username, password, fingerprint, address, patience, is_known=is_known)
            )
            self._checks[fingerprint] = check
            check.add_done_callback(lambda done: self._checked(fingerprint, done))
        return await asyncio.shield(check)

    def prepare(self) -> Callable[[], None]:
        """Read the file again, and return a function that puts it in force. Raises PasswordFileError.

        There are two steps, so that a reload can check everything before it changes anything.
        """
        table = read_passwords(self.path)

        def use() -> None:
            self._table = table

        return use

    async def close(self) -> None:
        """Stop the worker thread."""
        _open.discard(self)
        await self._queue.close()

    def _checked(self, fingerprint: bytes, done: asyncio.Future[bool]) -> None:
        del self._checks[fingerprint]
        if not done.cancelled():
            done.exception()  # mark it as seen: those that waited got it, and there may be none

    async def _verify(
        self,
        table: PasswordTable,
        username: str,
        password: str,
        fingerprint: bytes,
        address: str,
        patience: float | None,
        *,
        is_known: bool,
    ) -> bool:
        good = await self._queue.run(
            lambda: table.verify(username, password), address=address, patience=patience, is_known=is_known
        )
        if good:
            self._good.remember(username, fingerprint, self._clock())
        return good


def reread_password_files() -> list[Callable[[], None]]:
    """Read all password files in this process again. Return the functions that put them in force. This is slow.

    Raises:
        ConfigError: A file cannot be read or used.
    """
    uses, problems = [], []
    for checker in tuple(_open):
        try:
            uses.append(checker.prepare())
        except PasswordFileError as wrong:
            problems.append(Problem("", checker.named, str(wrong)))
    if problems:
        raise ConfigError(problems)
    return uses


_open: WeakSet[PasswordChecker] = WeakSet()
