"""Reads lists: CrowdSec's API, a file, a URL. Each reader keeps what it has read, and where it stands."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...config.blocklists import BlocklistConfig, CrowdsecConfig
from ...config.errors import without_credentials
from .decisions import Decisions
from .decisions import parse as parse_decisions
from .lines import Lines
from .networks import Ignored, Protected, UnusableList

if TYPE_CHECKING:
    from proxyproto_rs import AddressSet

_MOST_OF_A_KEY = 4096  # bytes
_LONGEST_IN_STEP = 3600.0  # seconds until all decisions are asked for again
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Changes(NamedTuple):
    """What a reading has changed: networks that are new, that are gone, and what could not be used."""

    new: int
    gone: int
    ignored: Ignored


class Reader(Protocol):
    """Reads one list."""

    addresses: AddressSet

    async def read(self, protected: Protected, *, anew: bool) -> Changes | None:
        """Read what is new and put it in force. None if nothing is. With `anew` it reads everything.

        Raises UnusableList, with a text for the operator; what was read before stays in force.
        """

    def networks(self) -> int:
        """How many networks are in force."""


def reader_of(config: BlocklistConfig, clock: Callable[[], float] = time.monotonic) -> Reader:
    """Make the reader of a list. `clock` is in seconds and does not jump."""
    if config.crowdsec is not None:
        return _Crowdsec(config, config.crowdsec, clock)
    return _File(config, Path(config.file)) if config.file is not None else _Url(config, config.url or "")


def read_key(path: str) -> str:
    """Read the key of CrowdSec's API. Raises UnusableList, which never quotes it."""
    try:
        with Path(path).open("rb") as file:
            key = file.read(_MOST_OF_A_KEY).decode("ascii").strip()
    except OSError as wrong:
        raise UnusableList(f"key_file {path} cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError:
        raise UnusableList(f"key_file {path} must hold the key alone, in ASCII") from None
    if not key or not key.isprintable() or any(sign.isspace() for sign in key):
        raise UnusableList(f"key_file {path} must hold one key: `cscli bouncers add NAME -o raw` prints it")
    return key


def read_file(path: Path, most: int) -> bytes:
    """Read a list's file of at most `most` bytes. Raises UnusableList."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as wrong:
        raise UnusableList(f"{path} cannot be read: {wrong.strerror}") from None
    if len(data) > most:
        raise UnusableList(f"{path} has more than max_size ({most} bytes)")
    return data


class _Crowdsec:
    """Pulls the decisions: all of them first, after every failure and once an hour; the changes in between.

    The API remembers for each key what it has told. A change in an answer that got lost would never come again. Some it
    never tells: a decision is stored with the time at which its request began, so a pull that ends before that request
    does is ahead of it. CrowdSec 1.4.6 kept 5 of 1,000 decisions to itself that were added while we pulled 70 times.
    """

    def __init__(self, config: BlocklistConfig, crowdsec: CrowdsecConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._crowdsec = crowdsec
        self._clock = clock
        self._decisions = Decisions()
        self.addresses = self._decisions.addresses
        self._in_step_until: float | None = None
        """Until when it is enough to ask for changes. None if it is not."""

    def networks(self) -> int:
        return len(self._decisions)

    async def read(self, protected: Protected, *, anew: bool) -> Changes | None:
        until = self._in_step_until
        everything = anew or until is None or self._clock() >= until
        self._in_step_until = None
        crowdsec = self._crowdsec
        try:
            key = await asyncio.to_thread(read_key, crowdsec.key_file)
            answer = await _get(
                f"{crowdsec.url}/v1/decisions/stream",
                self._config,
                headers={"X-Api-Key": key},
                parameters={
                    "startup": "true" if everything else "false",
                    "scopes": ",".join(scope.lower() for scope in crowdsec.scopes),
                    # Otherwise it tells only of the longest decision of an address, and of the end of one of several.
                    "dedup": "false",
                },
                on_refused=(
                    f"it does not take the key in {crowdsec.key_file}: make one with"
                    " `cscli bouncers add NAME -o raw`, and write it into that file"
                ),
            )
            assert answer is not None
            changes = await asyncio.to_thread(self._take, answer.data, protected, everything=everything)
        except UnusableList:
            await asyncio.to_thread(self._decisions.expire, self._clock())
            raise
        self._in_step_until = self._clock() + _LONGEST_IN_STEP if everything else until
        return changes

    def _take(self, data: bytearray, protected: Protected, *, everything: bool) -> Changes:
        pulled = parse_decisions(data, self._crowdsec.scopes, protected)
        new, gone = self._decisions.take(pulled, self._clock(), everything=everything)
        return Changes(new, gone, pulled.ignored)


class _File:
    """Reads a file when it has changed: its inode, its size, or its time."""

    def __init__(self, config: BlocklistConfig, path: Path) -> None:
        self._config = config
        self._path = path
        self._lines = Lines()
        self.addresses = self._lines.addresses
        self._seen: tuple[int, ...] | None = None

    def networks(self) -> int:
        return len(self._lines)

    async def read(self, protected: Protected, *, anew: bool) -> Changes | None:
        return await asyncio.to_thread(self._read, protected, anew=anew)

    def _read(self, protected: Protected, *, anew: bool) -> Changes | None:
        try:
            found = os.stat(self._path)
        except OSError as wrong:
            self._seen = None
            raise UnusableList(f"{self._path} cannot be read: {wrong.strerror}") from None
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen and not anew:
            return None
        self._seen = None
        changes = Changes(*self._lines.take(read_file(self._path, self._config.max_size), protected))
        self._seen = seen
        return changes


class _Url:
    """Reads a URL, by its ETag only if it has changed."""

    def __init__(self, config: BlocklistConfig, url: str) -> None:
        self._config = config
        self._url = url
        self._lines = Lines()
        self.addresses = self._lines.addresses
        self._tag: str | None = None

    def networks(self) -> int:
        return len(self._lines)

    async def read(self, protected: Protected, *, anew: bool) -> Changes | None:
        headers = {} if anew or self._tag is None else {"If-None-Match": self._tag}
        answer = await _get(self._url, self._config, headers=headers, redirects=True)
        if answer is None:
            return None
        changes = Changes(*await asyncio.to_thread(self._lines.take, answer.data, protected))
        self._tag = answer.tag
        return changes


class _Answer(NamedTuple):
    data: bytearray
    tag: str | None


async def _get(
    url: str,
    config: BlocklistConfig,
    *,
    headers: dict[str, str],
    parameters: dict[str, str] | None = None,
    redirects: bool = False,
    on_refused: str = "access is refused",
) -> _Answer | None:
    """Get a URL; None if it has not changed. Raises UnusableList.

    Nothing is decompressed: a small answer could become a large one. A proxy of the environment is not asked.
    """
    await asyncio.to_thread(importlib.import_module, "aiohttp")  # the event loop would stand still for it
    import aiohttp

    shown = without_credentials(url).partition("?")[0]
    headers = {"Accept-Encoding": "identity", "User-Agent": "proxyproto-rs", **headers}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=config.timeout), auto_decompress=False
            ) as session,
            session.get(
                url, headers=headers, params=parameters, allow_redirects=redirects, max_redirects=3
            ) as response,
        ):
            status = response.status
            if status == HTTPStatus.NOT_MODIFIED and "If-None-Match" in headers:
                return None
            if status in _REFUSED:
                raise UnusableList(f"{shown} answered {status}: {on_refused}")
            if status != HTTPStatus.OK:
                raise UnusableList(f"{shown} answered {status}")
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise UnusableList(f"{shown} is sent compressed ({encoding[:32]}), which was not asked for")
            return _Answer(await _body(response, config.max_size, shown), response.headers.get("ETag"))
    except asyncio.TimeoutError:
        raise UnusableList(f"{shown} has not answered whole in {config.timeout:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as wrong:
        text = without_credentials(str(wrong)) or type(wrong).__name__
        raise UnusableList(f"{shown} cannot be read: {text[:300]}") from None


async def _body(response: Any, most: int, shown: str) -> bytearray:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > most:
            raise UnusableList(f"{shown} has more than max_size ({most} bytes)")
    return data
