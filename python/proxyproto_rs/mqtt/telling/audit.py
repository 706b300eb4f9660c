"""The audit log: one JSON object a line. A thread of its own writes it, so that it never delays a login."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections import deque
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from .feed import Feed

AuditEvent = Literal[
    "broker.started",
    "broker.stopping",
    "config.reloaded",
    "config.rejected",
    "connection.refused",
    "client.refused",
    "client.connected",
    "client.disconnected",
    "publish.denied",
    "subscribe.denied",
    "block.added",
    "block.removed",
    "block.expired",
    "session.disconnect",
    "session.remove",
    "unauthorized.delete",
    "api.denied",
]

Endpoint = tuple[str, int]
"""Host and port."""

_QUEUE = 10_000  # lines; they take about 10 MB while the disk does not write
# Seconds for which lines gather. Waking the thread for each line, and encoding it before, made a login and its end take
# 126 us of Python instead of 76 (benches/mqtt_front_logins.py, two cores).
_GATHER = 0.02
_logger = logging.getLogger("proxyproto_rs.mqtt.audit")


class AuditLog:
    """Appends events to a file, and tells them to whoever listens to `feed`. With `path` None there is no file.

    The constructor raises OSError if the file cannot be opened. Later no method raises because of the file:
    lines that cannot be written are dropped and counted in `dropped`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        node: str = "",
        clock: Callable[[], float] = time.time,
        capacity: int = _QUEUE,
        feed: Feed | None = None,
    ) -> None:
        self.dropped: int = 0
        self._feed = feed
        self._path = path
        self._node = node
        self._clock = clock
        self._capacity = capacity
        self._lines: deque[dict[str, Any] | None] = deque()  # None: open the file again
        self._has_lines = threading.Event()
        self._is_urgent = threading.Event()
        self._ended = False
        self._torn = False  # the last line ended in the middle
        self._failing = False
        self._thread: threading.Thread | None = None
        if path is not None:
            file = _open(path)
            self._thread = threading.Thread(target=self._run, args=(file,), name="mqtt-audit", daemon=True)
            self._thread.start()

    def write(
        self,
        event: AuditEvent,
        *,
        listener: str | None = None,
        client: Endpoint | None = None,
        proxy: Endpoint | None = None,
        proxy_version: int = 0,
        session_id: str | None = None,
        client_id: str | None = None,
        username: str | None = None,
        reason: str | None = None,
        detail: str | None = None,
        tls: dict[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Queue one line. `extra` holds the event's own fields, named as in JSON (`bytesIn`, `count`, `by`)."""
        is_heard = self._feed is not None and self._feed.is_wanted
        if self._thread is None and not is_heard:
            return
        line = {
            "ts": self._clock(),
            "event": event,
            "node": self._node,
            "listener": listener,
            "client": client,
            "proxy": proxy,
            "proxyVersion": proxy_version,
            "sessionId": session_id,
            "clientId": client_id,
            "username": username,
            "reason": reason,
            "detail": detail,
            "tls": tls,
            **extra,
        }
        if self._feed is not None and is_heard:
            # A copy, because the thread changes the line when it encodes it.
            self._feed.keep(line.copy())
            if len(self._feed):
                # Here, and not in the thread, because those who listen do so in the event loop.
                self._feed.publish(event, encoded(line.copy()))
        if self._thread is None:
            return
        if len(self._lines) >= self._capacity:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def reopen(self) -> None:
        """Open the file again, for logrotate. What was told before goes to the old file, what comes after to the new one."""
        if self._thread is not None:
            self._lines.append(None)
            self._write_at_once()

    def close(self, timeout: float = 5.0) -> None:
        """Write the queued lines and close the file. Blocks, for at most `timeout` seconds."""
        if self._thread is None:
            return
        self._ended = True
        self._write_at_once()
        self._thread.join(timeout)
        self._thread = None

    def _write_at_once(self) -> None:
        self._is_urgent.set()
        self._has_lines.set()

    def _run(self, first: int) -> None:
        file: int | None = first
        ended = False
        while not ended:
            self._has_lines.wait()
            self._is_urgent.wait(_GATHER)
            self._has_lines.clear()
            self._is_urgent.clear()
            ended = self._ended
            gathered = [self._lines.popleft() for _ in range(len(self._lines))]
            if file is None:
                file = self._reopened(None)
            for is_reopening, lines in groupby(gathered, key=lambda line: line is None):
                if is_reopening:
                    file = self._reopened(file)
                else:
                    self._put(file, [encoded(line) for line in lines if line is not None])
        if file is not None:
            os.close(file)

    def _reopened(self, file: int | None) -> int | None:
        if file is not None:
            os.close(file)
        assert self._path is not None
        try:
            return _open(self._path)
        except OSError as wrong:
            self._complain("opened", wrong)
            return None

    def _put(self, file: int | None, lines: list[str]) -> None:
        if file is None:
            self.dropped += len(lines)
            return
        # os.write, because a buffered file would keep what a full disk has not taken, and write it again later.
        data = b"".join(line.encode("ascii") + b"\n" for line in lines)
        if self._torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError as wrong:
            self._complain("written", wrong)
            self.dropped += min(len(lines), data[written:].count(b"\n"))
            self._torn = self._torn if written == 0 else data[written - 1 : written] != b"\n"
        else:
            self._torn = self._failing = False

    def _complain(self, what: str, wrong: OSError) -> None:
        if not self._failing:  # log it once, not for each line
            self._failing = True
            _logger.error("audit file cannot be %s, lines are dropped: %s", what, wrong)


def check_audit_file(path: str | os.PathLike[str]) -> None:
    """Check that an audit log can be written there, and make no file. Raises OSError."""
    file = Path(path)
    if file.exists():
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    else:
        os.stat(file.parent)
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _open(path: str | os.PathLike[str]) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def encoded(line: dict[str, Any]) -> str:
    """Return a line as JSON. It changes the line, so call it once for each."""
    line["ts"] = rfc3339(line["ts"])
    line["client"] = _endpoint(line["client"])
    line["proxy"] = _endpoint(line["proxy"])
    return _encode(line)


_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _endpoint(address: Endpoint | None) -> dict[str, Any] | None:
    return None if address is None else {"ip": address[0], "port": address[1]}
