"""Minutes of mixed traffic. It reports rate, memory, file descriptors and outcomes at the start and at the end.

    python benches/soak.py [SECONDS]

Ten minutes by default. Ends with 1 if a client got a wrong answer, or if descriptors are left.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from processes import Server
from soak_traffic import Traffic

SECONDS = 600.0
CONCURRENCY = 200
WARM_UP = 20.0
EVERY = 30.0


class SoakServer(Server):
    """The server, which reports its counters."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("soak_server.py"))]
        super().__init__(command, os.sched_getaffinity(0))

    def ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Report:
    """One line for each interval."""

    def __init__(self, server: SoakServer, traffic: Traffic) -> None:
        self._server = server
        self._traffic = traffic
        self._started = self._last = time.monotonic()
        self._connections = 0

    def heading(self) -> None:
        print(
            f"{'seconds':>8} {'per s':>7} {'RSS KiB':>8} {'fds':>5} {'pending':>8} {'open':>5} {'wrong':>6}"
        )

    def line(self) -> None:
        now, connections = time.monotonic(), self._traffic.connections
        rate = (connections - self._connections) / (now - self._last)
        self._last, self._connections = now, connections
        said = self._server.ask()
        print(
            f"{now - self._started:8.0f} {rate:7.0f} {self._server.resident() / 1024:8.0f} "
            f"{self._server.open_files():5} {said['pending']:8} {said['open']:5} {self._traffic.wrong.total():6}",
            flush=True,
        )


def print_outcomes(first: dict[str, int], last: dict[str, int]) -> None:
    print(f"\n{'outcome':22} {'at start':>10} {'at end':>10}")
    for outcome, count in last.items():
        print(f"{outcome:22} {first[outcome]:10} {count:10}")
    print(f"{'all':22} {sum(first.values()):10} {sum(last.values()):10}")


async def soak(server: SoakServer, seconds: float) -> bool:
    host, port = server.address.rsplit(":", 1)
    traffic = Traffic((host, int(port)))
    files = server.open_files()
    print(f"before: RSS {server.resident() / 1024:.0f} KiB, {files} descriptors\n")
    running = asyncio.create_task(traffic.run(CONCURRENCY))
    report = Report(server, traffic)
    report.heading()

    await asyncio.sleep(min(WARM_UP, seconds / 4))
    report.line()
    first, memory = server.ask()["outcomes"], server.resident()
    end = time.monotonic() + seconds - min(WARM_UP, seconds / 4)
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(EVERY, left))
        report.line()
    traffic.stop()
    await running
    said = await ask_when_idle(server)
    report.line()

    print_outcomes(first, said["outcomes"])
    print(
        f"\n{traffic.connections} connections, {traffic.served} served and answered, {said['pauses']} pauses"
    )
    print(f"RSS {memory / 1024:.0f} -> {server.resident() / 1024:.0f} KiB since the warm-up")
    print(f"descriptors {files} -> {server.open_files()}")
    for what, count in traffic.wrong.most_common(20):
        print(f"wrong: {count} times {what}")
    return not traffic.wrong and server.open_files() == files


async def ask_when_idle(server: SoakServer) -> dict[str, Any]:
    while True:
        said = server.ask()
        if not said["pending"] and not said["open"]:
            return said
        await asyncio.sleep(0.1)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with SoakServer() as server:
        sys.exit(0 if asyncio.run(soak(server, seconds)) else 1)


if __name__ == "__main__":
    main()
