"""Many clients behind a proxy, for servers with several workers."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from integrations.asking import WITH_TLS, connection, get

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path


class Load:
    """Clients that ask as fast as they can, each time on a new connection."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._changed = threading.Condition()
        self._ends = False
        self.processes: set[str] = set()
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ends:
            try:
                with connection(self._listening, WITH_TLS.raw) as proxied:
                    process = proxied.get(Connection="close").rpartition(" ")[2]
            except Exception as error:
                self.failures.append(repr(error))
                process = ""
            with self._changed:
                self.processes.add(process)
                self._changed.notify_all()

    @contextlib.contextmanager
    def running(self, clients: int = 4) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ends = True
            for thread in threads:
                thread.join()

    def wait_for_processes(self, more: int) -> None:
        """Wait until so many processes have answered that had not before."""
        with self._changed:
            enough = len(self.processes) + more
            assert self._changed.wait_for(lambda: len(self.processes) >= enough or self.failures, 50)


def ask_beside_a_busy_worker(listening: socket.socket, fifo: Path) -> None:
    """Ask while one worker is busy: a request for ``/slow`` lets it read this FIFO until we close it.

    With two workers, 12 answers cannot be chance.
    """
    with connection(listening) as slow:
        answered: list[str] = []
        thread = threading.Thread(target=lambda: answered.append(slow.get("/slow")))
        thread.start()
        with fifo.open("w"):  # waits until a worker reads it
            for _ in range(12):
                assert get(listening).startswith("192.0.2.1 ")
            assert answered == []
        thread.join()
        assert answered
