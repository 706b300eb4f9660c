"""The broker's log: its lines, and the text and JSON formats.

Our own fields come first. A stranger's come last and JSON-quoted, so that no client id can forge a field or a
line. contrib/fail2ban relies on that.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from .log_stream import LogStream
from .timestamps import rfc3339

if TYPE_CHECKING:
    from ..config import LogConfig
    from ..model.connection import Address, Connection

_QUIET = ("amqtt", "transitions")
"""Loggers that write two lines for every stray connection."""

_JOURNAL = "JOURNAL_STREAM"  # systemd sets it when standard error goes to the journal

_SHORT = {"MQTT_3_1": "3.1", "MQTT_5": "5"}
"""What a line says of the version; most clients speak 3.1.1, of which it says nothing."""

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")


def configure(config: LogConfig) -> None:
    """Log to standard error in the configured format and level. A second call replaces the first."""
    handler = LogStream(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if config.format == "json" else TextFormatter(with_time=_JOURNAL not in os.environ)
    )
    logging.basicConfig(level=config.level, handlers=[handler], force=True)
    # Neither format shows these, and looking them up takes 0.9 of the 2.3 us that a record takes (CPython 3.11).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in _QUIET:
        quiet = logging.getLogger(name)
        if quiet.level == logging.NOTSET:
            quiet.setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """Writes `LEVEL logger message`, with the time in front unless the journal adds its own."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__(("%(asctime)s " if with_time else "") + "%(levelname)s %(name)s %(message)s")
        self._second = (0, "")  # the last one, and how it is written

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time as logging does by default. Lines of one second share what is slow."""
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime(self.default_time_format, time.localtime(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03d}"


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line: ts, level, logger, message, our fields, and a traceback in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "ts": rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def connected(
    connection: Connection,
    *,
    client_id: str,
    username: str | None,
    keep_alive: int,
    clean: bool,
    mqtt_version: str = "MQTT_3_1_1",
    upstream: str | None = None,
) -> None:
    """Log that a client was let in."""
    if logger.isEnabledFor(logging.INFO):
        tls = connection.tls.version if connection.tls is not None else None
        _log(
            logging.INFO,
            "connected",
            {
                "client": endpoint(connection.client),
                "listener": connection.listener,
                "proxy": endpoint(connection.proxy),
                "v": connection.proxy_version or None,
                "tls": tls,
                **_set(mqtt=_SHORT.get(mqtt_version), upstream=upstream),
                "keepalive": keep_alive,
                "clean": int(clean),
            },
            {"id": client_id, "user": username},
        )


def refused(
    connection: Connection,
    *,
    reason: str,
    attempts: int,
    client_id: str,
    username: str | None,
    detail: str = "",
    upstream: str | None = None,
) -> None:
    """Log a client that was refused behind the acceptor. `detail` may quote the stranger, so it comes last."""
    if logger.isEnabledFor(logging.WARNING):
        strange: dict[str, str | None] = {"id": client_id, "user": username}
        if detail:
            strange["detail"] = detail
        _log(
            logging.WARNING,
            "refused",
            {
                "client": endpoint(connection.client),
                "reason": reason,
                "listener": connection.listener,
                "proxy": endpoint(connection.proxy),
                "attempts": attempts,
                **_set(upstream=upstream),
            },
            strange,
        )


def disconnected(
    connection: Connection,
    *,
    reason: str,
    seconds: int,
    bytes_in: int,
    bytes_out: int,
    client_id: str,
    upstream: str | None = None,
) -> None:
    """Log the end of a connection that was let in."""
    if logger.isEnabledFor(logging.INFO):
        _log(
            logging.INFO,
            "disconnected",
            {
                "client": endpoint(connection.client),
                "reason": reason,
                "listener": connection.listener,
                "seconds": seconds,
                "in": bytes_in,
                "out": bytes_out,
                **_set(upstream=upstream),
            },
            {"id": client_id},
        )


def endpoint(address: Address | None) -> str | None:
    """Write an address as `203.0.113.7:50123` or `[2001:db8::7]:50123`. A UNIX path is quoted like a stranger's text."""
    if address is None:
        return None
    host, port = address
    if not host or host[0] == "/" or not host.isprintable() or " " in host:
        return json.dumps(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _log(level: int, what: str, ours: dict[str, Any], strange: dict[str, str | None]) -> None:
    """Log one line. `ours` are numbers and words of this program; None is left out. In `strange` None is null."""
    parts = [what, *[f"{name}={value}" for name, value in ours.items() if value is not None]]
    parts += [f"{name}={'null' if value is None else _quoted(value)}" for name, value in strange.items()]
    fields = {"event": what, **ours, **strange}
    # `logger.log` would look for the caller, which is always this one.
    record = logger.makeRecord(
        logger.name, level, __file__, 0, " ".join(parts), (), None, what, {"fields": fields}
    )
    logger.handle(record)


_quoted = json.JSONEncoder().encode
