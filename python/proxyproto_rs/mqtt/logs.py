"""The broker's log: its lines, and the text and JSON formats they are written in.

Our own fields stand first, a stranger's last and JSON-quoted, so that no client id can forge a field or a
line (contrib/fail2ban rests on that).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import LogConfig
    from .connection import Address, Connection

_QUIET = ("amqtt", "transitions")
"""Loggers that write two lines for every stray connection."""

_JOURNAL = "JOURNAL_STREAM"  # set by systemd where standard error is the journal

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")


def configure(config: LogConfig) -> None:
    """Log to standard error in the asked format and level. A second call replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if config.format == "json" else TextFormatter(with_time=_JOURNAL not in os.environ)
    )
    logging.basicConfig(level=config.level, handlers=[handler], force=True)
    for name in _QUIET:
        quiet = logging.getLogger(name)
        if quiet.level == logging.NOTSET:
            quiet.setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`LEVEL logger message`, with the time before it unless the journal adds its own."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__(("%(asctime)s " if with_time else "") + "%(levelname)s %(name)s %(message)s")


class JsonFormatter(logging.Formatter):
    """One object a line: ts, level, logger, message, the fields of our lines, a traceback in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "ts": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def connected(
    connection: Connection, *, client_id: str, username: str | None, keep_alive: int, clean: bool
) -> None:
    """A client was let in."""
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
) -> None:
    """A client was refused behind the acceptor. `detail` may quote the stranger, so it comes last."""
    if logger.isEnabledFor(logging.WARNING):
        strange: dict[str, Any] = {"id": client_id, "user": username}
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
            },
            strange,
        )


def disconnected(
    connection: Connection, *, reason: str, seconds: int, bytes_in: int, bytes_out: int, client_id: str
) -> None:
    """A connection that was let in is over."""
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
            },
            {"id": client_id},
        )


def endpoint(address: Address | None) -> str | None:
    """`203.0.113.7:50123`, `[2001:db8::7]:50123`; a UNIX path is quoted like a stranger's text."""
    if address is None:
        return None
    host, port = address
    if not host or host[0] == "/" or not host.isprintable() or " " in host:
        return json.dumps(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _log(level: int, what: str, ours: dict[str, Any], strange: dict[str, Any]) -> None:
    """`ours` are numbers and words of this program; None is left out there, and is null in `strange`."""
    parts = [what, *(f"{name}={value}" for name, value in ours.items() if value is not None)]
    parts += [f"{name}={json.dumps(value)}" for name, value in strange.items()]
    fields = {"event": what, **ours, **strange}
    logger.log(level, "%s", " ".join(parts), extra={"fields": fields})
