"""The audit log: one JSON object a line. A thread of its own writes it, so that it never delays a login."""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

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

_QUEUE = 10_000  # lines; at 300 bytes each they take about 3 MB while the disk does not write
_logger = logging.getLogger("proxyproto_rs.mqtt.audit")


class AuditLog:
    """Appends events to a file. With `path` None it is off, and `write` does nothing.

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
    ) -> None:
        self.dropped: int = 0
        self._path = path
        self._node = node
        self._clock = clock
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._reopen = threading.Event()
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
        if self._thread is None:
            return
        line = {
            "ts": _rfc3339(self._clock()),
            "event": event,
            "node": self._node,
            "listener": listener,
            "client": _endpoint(client),
            "proxy": _endpoint(proxy),
            "proxyVersion": proxy_version,
            "sessionId": session_id,
            "clientId": client_id,
            "username": username,
            "reason": reason,
            "detail": detail,
            "tls": tls,
            **extra,
        }
        try:
            self._lines.put_nowait(json.dumps(line, separators=(",", ":"), default=str))
        except queue.Full:
            self.dropped += 1

    def reopen(self) -> None:
        """Open the file again before the next line, for logrotate."""
        self._reopen.set()

    def close(self, timeout: float = 5.0) -> None:
        """Write the queued lines and close the file. Blocks, for at most `timeout` seconds at each of the two steps."""
        if self._thread is None:
            return
        try:
            self._lines.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)
        self._thread = None

    def _run(self, first: int) -> None:
        file: int | None = first
        ended = False
        while not ended:
            lines, ended = self._take()
            if self._reopen.is_set() or file is None:
                self._reopen.clear()
                file = self._reopened(file)
            if file is not None:
                self._append(file, lines)
            else:
                self.dropped += len(lines)
        if file is not None:
            os.close(file)

    def _take(self) -> tuple[list[str], bool]:
        """Wait for a line. Return all lines that are there, and whether the log ends with them."""
        lines: list[str] = []
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return lines, False
        return lines, True

    def _reopened(self, file: int | None) -> int | None:
        if file is not None:
            os.close(file)
        assert self._path is not None
        try:
            return _open(self._path)
        except OSError as wrong:
            self._complain("opened", wrong)
            return None

    def _append(self, file: int, lines: list[str]) -> None:
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


def _endpoint(address: Endpoint | None) -> dict[str, Any] | None:
    return None if address is None else {"ip": address[0], "port": address[1]}


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
