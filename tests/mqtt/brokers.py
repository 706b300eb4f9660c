"""Mosquitto as Debian packages it: run in the foreground on a loopback port, and stopped by its own pid."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

from interop.proxies import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Address = tuple[str, int]

_TRIES = 5


@contextlib.contextmanager
def running_mosquitto(directory: Path, configuration: str = "allow_anonymous true") -> Iterator[Address]:
    """Run a broker with one listener, whose address is given, and these lines of configuration behind it.

    It keeps nothing on disk. Its log is printed at the end. Without Mosquitto the test is skipped.
    """
    program = find_program("mosquitto")
    path = directory / "mosquitto.conf"
    for _ in range(_TRIES):
        address = _free_address()
        path.write_text(
            f"persistence false\nlog_dest stderr\nlistener {address[1]} {address[0]}\n{configuration}\n"
        )
        with _Process([program, "-c", str(path)]) as process:
            # Somebody else may have taken the port meanwhile.
            if process.starts():
                yield address
                return
    raise AssertionError("mosquitto does not start: its log is above")


class _Process:
    """A broker that logs to stderr, which is read all the time: with a full pipe the broker would stop."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        self._log: list[str] = []
        self._decided = threading.Event()
        self._running = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        print(*self._log, sep="")

    def starts(self) -> bool:
        """Wait until it serves, or has ended."""
        self._decided.wait()
        return self._running

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as log:
            for line in log:
                self._log.append(line)
                if line.endswith(" running\n"):
                    self._running = True
                    self._decided.set()
        self._decided.set()


def _free_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: Address = server.getsockname()
        return address
