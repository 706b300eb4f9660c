"""Changes a file of users and password hashes. All lines but the user's stay as they are.

The file is replaced at once: whoever reads it meanwhile, as a broker that reloads, has the old one or the new one whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from argon2 import PasswordHasher

from .password_table import PasswordFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_FILE = 0o600


def set_password(path: str | os.PathLike[str], username: str, password: str) -> bool:
    """Add a user, or change the password. Return whether the user is new. A file that is not there is made.

    Raises:
        PasswordFileError: The file cannot be read or written, or no line can hold such a user name.
    """
    refuse_unusable(username)
    line = f"{username}:{PasswordHasher().hash(password)}\n"
    with _replacing(Path(path), may_be_new=True) as lines:
        places = _places(lines, username)
        for place in reversed(places[1:]):  # a broker refuses a file that has a user twice
            del lines[place]
        if places:
            lines[places[0]] = line
            return False
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += "\n"
        lines.append(line)
        return True


def remove_user(path: str | os.PathLike[str], username: str) -> bool:
    """Remove a user. Return False, and change nothing, if there is none of this name.

    Raises:
        PasswordFileError: The file cannot be read or written.
    """
    with _replacing(Path(path), may_be_new=False) as lines:
        places = _places(lines, username)
        for place in reversed(places):
            del lines[place]
        return bool(places)


def refuse_unusable(username: str) -> None:
    if not username:
        raise PasswordFileError("a user name must not be empty")
    if ":" in username or not username.isprintable():
        raise PasswordFileError(f"a user name must be printable, without a colon (got {username!a})")
    if username.startswith("#") or username != username.lstrip():
        raise PasswordFileError(f"a user name must not begin with # or a space (got {username!r})")


def _places(lines: list[str], username: str) -> list[int]:
    """Return which lines are the user's. They are read as `read_passwords` reads them."""
    return [
        place
        for place, line in enumerate(lines)
        if not line.lstrip().startswith("#") and line.strip().partition(":")[:2] == (username, ":")
    ]


@contextlib.contextmanager
def _replacing(path: Path, *, may_be_new: bool) -> Iterator[list[str]]:
    """Give the lines to change. The file is written only if they have changed."""
    target = path.resolve()  # a symbolic link stays one
    try:
        with _locked(target.parent) as directory:
            lines, old = _read(path, target, may_be_new=may_be_new)
            before = list(lines)
            yield lines
            if lines != before:
                _write(target, "".join(lines), old)
                os.fsync(directory)
    except OSError as wrong:
        raise PasswordFileError(f"{path}: cannot be changed: {wrong.strerror}") from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold the directory, so that of two changes at the same time none is lost. Give its descriptor."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(path: Path, target: Path, *, may_be_new: bool) -> tuple[list[str], os.stat_result | None]:
    try:
        with target.open(encoding="utf-8", newline="") as file:
            return file.read().splitlines(keepends=True), os.fstat(file.fileno())
    except UnicodeDecodeError as wrong:
        raise PasswordFileError(f"{path}: is not UTF-8 text (byte {wrong.start})") from None
    except FileNotFoundError:
        if may_be_new:
            return [], None
        raise


def _write(target: Path, text: str, old: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            if old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, old.st_uid, old.st_gid)  # the broker that owns it must still read it
            os.fchmod(descriptor, _NEW_FILE if old is None else stat.S_IMODE(old.st_mode))
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
