"""A file of users and password hashes in amqtt's format, and the check of a password against it.

A line is `name:hash`. Empty lines and lines that begin with `#` are skipped. The hashes are argon2. amqtt's
old sha512_crypt (`$6$`) still works where Python has `crypt` (below 3.13).
"""

from __future__ import annotations

import hmac
import os
import secrets
import warnings
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class PasswordFileError(ValueError):
    """The file cannot be read or used. The text says where, and never quotes a hash."""


@dataclass(frozen=True, slots=True)
class PasswordTable:
    """The users and hashes of the file when it was read."""

    hashes: Mapping[str, str]
    unknown: str
    """The hash to check an unknown user's password against. Its check is as slow as the others."""

    def verify(self, username: str, password: str) -> bool:
        """Check a password. It is slow (argon2), and equally slow for an unknown user. Thread-safe."""
        known = self.hashes.get(username)
        good = _verify(self.unknown if known is None else known, password)
        return good and known is not None


def read_passwords(path: str | os.PathLike[str]) -> PasswordTable:
    """Read a password file. It takes as long as one argon2 hash.

    Raises:
        PasswordFileError: the file is missing or not UTF-8, a line has no colon, a user occurs twice, or a
            hash is of an unknown kind.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as wrong:
        raise PasswordFileError(f"{name}: cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise PasswordFileError(f"{name}: is not UTF-8 text (byte {wrong.start})") from None
    hashes: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        username, colon, encoded = line.partition(":")
        if not colon or not username:
            raise PasswordFileError(f"{name}:{number}: must be name:hash")
        if username in lines:
            raise PasswordFileError(
                f"{name}:{number}: user {username!r} stands at line {lines[username]} already"
            )
        if problem := _unusable(encoded):
            raise PasswordFileError(f"{name}:{number}: the hash of user {username!r} {problem}")
        hashes[username], lines[username] = encoded, number
    return PasswordTable(hashes, _hash_of_nobody(hashes))


def _verify(encoded: str, password: str) -> bool:
    if encoded.startswith("$6$"):
        made = _crypt(password, encoded) if _crypt is not None and "\0" not in password else None
        return made is not None and hmac.compare_digest(made, encoded)
    try:
        return _hasher.verify(encoded, password)
    except (Argon2Error, InvalidHashError):
        return False


def _unusable(encoded: str) -> str | None:
    if encoded.startswith("$6$"):
        return (
            None
            if _crypt
            else "is sha512_crypt, which this Python cannot check: hash the password with argon2"
        )
    try:
        extract_parameters(encoded)
    except InvalidHashError:
        return "is neither argon2 nor sha512_crypt"
    return None


def _hash_of_nobody(hashes: Mapping[str, str]) -> str:
    """Return a hash of a random password. Its check takes as long as that of a hash in the file."""
    for encoded in hashes.values():
        if encoded.startswith("$argon2"):
            return PasswordHasher.from_parameters(extract_parameters(encoded)).hash(secrets.token_urlsafe())
        made = _crypt(secrets.token_urlsafe(), encoded) if _crypt else None
        if made is not None:
            return made
    return _hasher.hash(secrets.token_urlsafe())


def _import_crypt() -> Callable[[str, str], str | None] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            from crypt import crypt
        except ImportError:
            return None
    return crypt


_crypt = _import_crypt()
_hasher = PasswordHasher()

_REMEMBERED = 100_000
"""A web service is asked about each client id too, of which one user may invent as many as it likes."""


class GoodLogins:
    """Remembers good logins for a while, so that a reconnect storm costs one slow check for each user.

    It keeps a hash of the password, made with a key that exists in this process alone. The stored hash goes
    into it, so a changed password makes it worthless. `now` is an argument; this class reads no clock.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        self._known: dict[str, tuple[bytes, float]] = {}

    def fingerprint(self, username: str, password: str, stored: str) -> bytes:
        """Return the hash that is remembered in place of the password."""
        digest = blake2b(key=self._key, digest_size=32)
        for part in (username, stored, password):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.digest()

    def knows(self, username: str, fingerprint: bytes, now: float) -> bool:
        """Whether this very login was good a short while ago."""
        known, until = self._known.get(username, (b"", 0.0))
        return hmac.compare_digest(known, fingerprint) and now < until

    def remember(self, username: str, fingerprint: bytes, now: float) -> None:
        """Remember a good login. Only the last one of each user is kept, and 100,000 of them at most."""
        self._known.pop(username, None)
        self._known[username] = (fingerprint, now + self._seconds)
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
