"""Checks whether the broker would start with a configuration, without opening a port or making a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .backend.embedded.persistence import not_writable
from .config import ConfigError, Problem
from .listening import channel_in_front
from .policy.password_table import PasswordFileError, read_passwords
from .store.opening import check_store
from .store.protocol import StoreError
from .tables.blocklists.lines import parse
from .tables.blocklists.networks import Protected, UnusableList
from .tables.blocklists.sources import read_file, read_key
from .telling.audit import check_audit_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .config import BrokerConfig


async def check(config: BrokerConfig) -> None:
    """Load every certificate, build every plugin, and look at the store and the audit file.

    Raises ConfigError with everything that is wrong.
    """
    problems: list[Problem] = []
    for listener in config.listeners.values():
        try:
            channel_in_front(listener, config.mqtt)
        except ConfigError as wrong:
            problems += wrong.problems
    problems += await _amqtt(config) if config.backend.kind == "amqtt" else _password_files(config)
    problems += _http(config)
    problems += _persistence(config)
    problems += _blocklists(config)
    problems += [problem async for problem in _files(config)]
    if problems:
        raise ConfigError(problems)


def _http(config: BrokerConfig) -> tuple[Problem, ...]:
    from .http.server import check

    if config.serves_http:
        try:
            check(config.http)
        except ConfigError as wrong:
            return tuple(wrong.problems)
    return ()


async def _amqtt(config: BrokerConfig) -> tuple[Problem, ...]:
    from .backend.amqtt.shared import broker_of

    try:
        broker = broker_of(config.amqtt, config.listeners)
    except ConfigError as wrong:
        return tuple(wrong.problems)
    await broker.plugins_manager.close()
    return ()


def _password_files(config: BrokerConfig) -> Iterator[Problem]:
    for position, source in enumerate(config.auth):
        if source.file is not None:
            try:
                read_passwords(source.file)
            except PasswordFileError as wrong:
                yield Problem("", ("auth", position, "file"), str(wrong))


def _persistence(config: BrokerConfig) -> Iterator[Problem]:
    if config.backend.embedded is not None:
        directory = config.backend.embedded.persistence
        if directory is not None and (why := not_writable(Path(directory))) is not None:
            yield Problem("", ("backend", "embedded", "persistence"), f"{directory}: {why}")


def _blocklists(config: BrokerConfig) -> Iterator[Problem]:
    for position, one in enumerate(config.blocklists):
        path = ("blocklists", position)
        try:
            if one.crowdsec is not None:
                read_key(one.crowdsec.key_file)
            elif one.file is not None:
                parse(read_file(Path(one.file), one.max_size), Protected(config.proxy.trusted or ()))
        except UnusableList as wrong:
            inner = ("file",) if one.crowdsec is None else ("crowdsec", "key_file")
            yield Problem("", (*path, *inner), str(wrong).removeprefix("key_file "))


async def _files(config: BrokerConfig) -> AsyncIterator[Problem]:
    try:
        await check_store(config.store, config.store_file)
    except StoreError as wrong:
        key = "store" if config.store_file is None else "store_file"
        yield Problem("", (key,), str(wrong).removeprefix(f"{key} "))
    if (audit := config.audit.file) is not None:
        try:
            check_audit_file(audit)
        except OSError as wrong:
            yield Problem("", ("audit", "file"), f"{audit}: {wrong.strerror}")
