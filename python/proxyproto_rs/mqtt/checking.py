"""Checks whether the broker would start with a configuration, without opening a port or the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend.amqtt.shared import broker_of
from .config import ConfigError, Problem
from .listening import context_of

if TYPE_CHECKING:
    from .config import BrokerConfig


async def check(config: BrokerConfig) -> None:
    """Load every certificate and build every plugin. Raises ConfigError with everything that is wrong."""
    problems: list[Problem] = []
    for listener in config.listeners.values():
        try:
            context_of(listener)
        except ConfigError as wrong:
            problems += wrong.problems
    try:
        broker = broker_of(config.amqtt, config.listeners)
    except ConfigError as wrong:
        problems += wrong.problems
    else:
        await broker.plugins_manager.close()
    if problems:
        raise ConfigError(problems)
