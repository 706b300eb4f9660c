"""Servers in pinned processes of their own, and what the kernel reports of their threads and memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
LOAD = HERE.parent / "target" / "benches" / "release" / "load"


class Server:
    """A running server; ends with the ``with`` block."""

    def __init__(self, command: list[str], cores: Iterable[int]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
        )
        self.pin(cores)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(f"{command} did not start")

    @classmethod
    def python(cls, name: str, cores: Iterable[int]) -> Server:
        return cls([sys.executable, str(HERE / "servers.py"), name], cores)

    @classmethod
    def epoll(cls, cores: Iterable[int], accept: str = "deferred") -> Server:
        return cls([str(LOAD), "serve", "v2", accept], cores)

    @property
    def pid(self) -> int:
        return self._process.pid

    def pin(self, cores: Iterable[int]) -> None:
        cores = set(cores)
        for task in os.listdir(f"/proc/{self.pid}/task"):
            os.sched_setaffinity(int(task), cores)

    def cpu(self) -> dict[str, float]:
        """Return the seconds of CPU of each kind of thread: "main" and "acceptor"."""
        spent = {"main": 0.0, "acceptor": 0.0}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            kind = "acceptor" if (task / "comm").read_text().startswith("proxyproto") else "main"
            spent[kind] += int((task / "schedstat").read_text().split()[0]) / 1e9
        return spent

    def resident(self) -> int:
        """Return the bytes of memory that the process does not share."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Rss")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(server: Server, header: str, connections: int, concurrency: int, core: int) -> dict[str, Any]:
    """Open connections to the server from a process on `core`; return what the generator says."""
    command = [str(LOAD), "connect", server.address, header, str(connections), str(concurrency)]
    done = subprocess.run(
        ["taskset", "-c", str(core), *command], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} of {connections} connections failed: {command}")
    return result


@contextlib.contextmanager
def silent(server: Server, connections: int) -> Iterator[None]:
    """Hold connections open to the server on which nothing is said; the server has accepted them all."""
    before = server.open_files()
    command = [str(LOAD), "hold", server.address, str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "holding\n":
            raise RuntimeError(f"{command} failed")
        while server.open_files() < before + connections:
            time.sleep(0.05)
        yield
        holder.communicate()
