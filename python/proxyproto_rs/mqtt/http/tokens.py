"""The tokens of the API: where they come from, and whether one is right."""

from __future__ import annotations

import hmac
import os
import secrets
from collections import OrderedDict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..config import ConfigError, Problem
from ..config.rules import is_usable_token
from ..model.networks import client_network, parse_address
from ..store.sqlite.file import sqlite_path

if TYPE_CHECKING:
    from ..config import BrokerConfig, HttpConfig

Access = Literal["read", "write"]

GENERATED = "http-token"
"""The file of the token that is generated, beside the store."""

_WRONG, _PER_SECONDS = 10, 60.0
_ADDRESSES = 1000  # whose wrong tokens are remembered; the least recent is forgotten first
_LARGEST = 4096  # bytes of a token's file


class Tokens:
    """The tokens in force."""

    def __init__(self, write: str | None, read: str | None) -> None:
        given: list[tuple[str | None, Access]] = [(write, "write"), (read, "read")]
        # Encoded, because compare_digest takes no text beyond ASCII.
        self._known = tuple((token.encode(), access) for token, access in given if token)

    def access_of(self, token: str) -> Access | None:
        """Return what the token allows, in a time that does not tell how much of it is right; None if it is wrong."""
        given, found = token.encode("utf-8", "surrogateescape"), None
        for known, access in self._known:
            if hmac.compare_digest(given, known):
                found = found or access
        return found


def load_tokens(http: HttpConfig, config: BrokerConfig) -> Tokens:
    """Read the tokens of a configuration, and generate one if it names none.

    Raises ConfigError if a file cannot be read, holds no token, or cannot be made.
    """
    read = None if http.read_token is None else http.read_token.get_secret_value()
    if http.token is not None:
        return Tokens(http.token.get_secret_value(), read)
    if http.token_file is not None:
        return Tokens(_read(http.token_file), read)
    return Tokens(None, read) if read is not None else Tokens(_generated(token_file(config)), None)


def check_tokens(http: HttpConfig) -> None:
    """Check the token's file, and make nothing. Raises ConfigError."""
    if http.token_file is not None:
        _read(http.token_file)


def token_file(config: BrokerConfig) -> Path:
    """Return the file of the generated token: beside the SQLite file, or where services keep their state."""
    setting = config.store
    is_file = setting is not None and setting.startswith("sqlite:") and setting != "sqlite::memory:"
    return Path(sqlite_path(setting if is_file else None)).with_name(GENERATED)


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            token = file.read(_LARGEST).decode("ascii").strip()
    except OSError as wrong:
        raise _wrong(f"{name}: cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError:
        raise _wrong(f"{name}: is not ASCII text") from None
    if not is_usable_token(token):
        raise _wrong(f"{name}: must hold one token: printable ASCII without a space")
    return token


def _generated(path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(str(path))
    except OSError as wrong:
        raise ConfigError(
            [
                Problem(
                    "",
                    ("http",),
                    f"{path}: no token can be generated there: {wrong.strerror}; set http.token_file",
                )
            ]
        ) from None
    token = secrets.token_urlsafe(32)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def _wrong(text: str) -> ConfigError:
    return ConfigError([Problem("", ("http", "token_file"), text)])


class WrongTokens:
    """Limits how often an address may be wrong. `now` is an argument, in seconds that never run backwards."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Return how many seconds the address must wait before its next token is looked at; 0 if it need not."""
        times = self._addresses.get(_client(address))
        if times is None or len(times) < _WRONG:
            return 0.0
        return max(0.0, times[0] + _PER_SECONDS - now)

    def add(self, address: str, now: float) -> None:
        """Remember a wrong token."""
        key = _client(address)
        times = self._addresses.setdefault(key, deque(maxlen=_WRONG))
        times.append(now)
        self._addresses.move_to_end(key)
        if len(self._addresses) > _ADDRESSES:
            self._addresses.popitem(last=False)


def _client(address: str) -> str:
    parsed = parse_address(address)
    return address if parsed is None else str(client_network(parsed, 64))
