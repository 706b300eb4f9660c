"""`proxyproto-rs broker`: runs an MQTT broker from a configuration file, until a signal ends it.

SIGHUP reads the file again and reopens the log files. SIGINT and SIGTERM end every session, then the process. It
tells systemd when it is ready, reloads and stops.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from . import systemd

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from proxyproto_rs.mqtt import BrokerService
    from proxyproto_rs.mqtt.config import Loaded

HELP = "serve MQTT behind proxies, as a configuration file says"
EXTRA = "mqtt"
EXAMPLES = """\
proxyproto-rs broker --config broker.yaml
proxyproto-rs broker --config broker.yaml --check
proxyproto-rs broker --print-config
"""

_MISTAKE = 2

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument("--config", metavar="FILE", help="YAML; without it, TBMQ's variables and defaults")
    parser.add_argument("--check", action="store_true", help="validate and bind nothing; status 0 or 2")
    parser.add_argument(
        "--print-config", action="store_true", help="show every value in force and where it came from"
    )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="let in whoever gives no user name if the configuration has no auth",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print or check the configuration, or run the broker; return the exit status."""
    from proxyproto_rs.mqtt.config import ConfigError, load
    from proxyproto_rs.mqtt.config.report import report

    source = partial(load, arguments.config, allow_anonymous=arguments.allow_anonymous)
    try:
        if arguments.print_config:
            print(report(source(usable=False)))
            return 0
        loaded = source()
    except ConfigError as wrong:
        if arguments.config is None:
            return _refuse(
                f"{wrong}\nThere is no --config FILE; --allow-anonymous lets in whoever gives no user name."
            )
        return _refuse(str(wrong))
    if arguments.check:
        return _check(loaded)
    return asyncio.run(_serve(loaded, source))


def _check(loaded: Loaded) -> int:
    from proxyproto_rs.mqtt.checking import check
    from proxyproto_rs.mqtt.config import ConfigError

    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    try:
        asyncio.run(check(loaded.config))
    except ConfigError as wrong:
        return _refuse(str(loaded.located(wrong)))
    return 0


async def _serve(loaded: Loaded, source: Callable[[], Loaded]) -> int:
    from proxyproto_rs.mqtt import BrokerService, ConfigError, StoreError
    from proxyproto_rs.mqtt.telling import logs

    logs.configure(loaded.config.log)
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    service = BrokerService(loaded.config, source=source)
    try:
        await service.start()
    except ConfigError as wrong:
        return _refuse(str(loaded.located(wrong)))
    except OSError as wrong:
        return _refuse(wrong.strerror or str(wrong))
    except StoreError as wrong:
        return _refuse(str(wrong))
    try:
        systemd.tell("READY=1", f"STATUS=Serving {', '.join(sorted(service.listening))}")
        await _until_told(service)
    finally:
        systemd.tell("STOPPING=1")
        await service.stop()
    return 0


async def _until_told(service: BrokerService) -> None:
    """Wait for SIGINT or SIGTERM. Reload at every SIGHUP."""
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        while await signals.get() == signal.SIGHUP:
            systemd.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            await _reload(service)
            systemd.tell("READY=1")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _reload(service: BrokerService) -> None:
    from proxyproto_rs.mqtt import ConfigError
    from proxyproto_rs.mqtt.telling import logs

    try:
        changed = await service.reload()
    except ConfigError as wrong:
        for problem in wrong.problems:
            logger.error("reload refused, the old configuration stays: %s", problem)
    except OSError as wrong:
        logger.error("reload refused, the old configuration stays: %s", wrong.strerror or wrong)
    else:
        logs.configure(service.config.log)
        logger.info("reloaded changed=%s", ",".join(changed) or "nothing")


def _refuse(text: str) -> int:
    sys.stderr.write("".join(f"proxyproto-rs broker: {line}\n" for line in text.splitlines()))
    return _MISTAKE
