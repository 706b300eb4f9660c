"""What deny lists cost: CPU of the acceptor's thread per connection with ten and with a hundred thousand entries, and
how long an update takes and keeps connections waiting."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import statistics
import threading
import time
from pathlib import Path

from rounds import ratio, table

from proxyproto_rs import Header, Listener

ROUNDS = 11
CONNECTIONS = 2_000
# The client is denied, so a connection ends in the acceptor, and nothing else is measured.
HEADER = Header.v2(("192.0.2.1", 1), ("198.51.100.1", 2)).encode()


def networks(count: int) -> list[str]:
    """Return so many entries. The last one denies the client."""
    return [f"10.{n >> 14 & 255}.{n >> 6 & 255}.{(n & 63) << 2}/30" for n in range(count - 1)] + [
        "192.0.2.0/24"
    ]


def acceptor_cpu() -> int:
    """Return the nanoseconds that the acceptor's thread has run."""
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text() == "proxyproto-rs\n":
            return int((task / "schedstat").read_text().split()[0])
    raise RuntimeError("there is no acceptor's thread")


def connect(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as peer:
        peer.sendall(HEADER)
        with contextlib.suppress(ConnectionResetError):
            peer.recv(1)


def microseconds_per_connection(deny: list[str]) -> float:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], deny=deny) as listener:
        address = listener.getsockname()
        connect(address)
        before = acceptor_cpu()
        for _ in range(CONNECTIONS - 1):
            connect(address)
        after = acceptor_cpu()
        assert listener.stats()["denied"] == CONNECTIONS
    return (after - before) / (CONNECTIONS - 1) / 1000


def update_while_serving(deny: list[str]) -> tuple[float, float]:
    """Return the milliseconds that update() takes, and the longest that a connection waited meanwhile."""
    waits: list[float] = []
    ending = threading.Event()
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"], deny=["192.0.2.0/24"]) as listener:
        address = listener.getsockname()

        def load() -> None:
            while not ending.is_set():
                start = time.perf_counter()
                connect(address)
                waits.append(time.perf_counter() - start)

        thread = threading.Thread(target=load)
        thread.start()
        while len(waits) < 50:
            time.sleep(0.001)
        waits.clear()
        start = time.perf_counter()
        listener.update(deny=deny)
        took = time.perf_counter() - start
        ending.set()
        thread.join()
    return took * 1000, max(waits) * 1000


def main() -> None:
    logging.disable()
    few, many = networks(10), networks(100_000)
    results: dict[str, list[float]] = {"few": [], "many": []}
    for number in range(ROUNDS):
        for name in ("few", "many") if number % 2 else ("many", "few"):
            results[name].append(microseconds_per_connection(few if name == "few" else many))
    rows = [
        ("10", f"{statistics.median(results['few']):.2f}", "1"),
        ("100 000", f"{statistics.median(results['many']):.2f}", ratio(results["many"], results["few"])),
    ]
    table(["entries in deny", "acceptor thread, us per connection", "ratio to 10 entries"], rows)
    took, waited = zip(*(update_while_serving(many) for _ in range(5)), strict=True)
    table(
        ["update() to 100 000 entries", "ms, median of 5"],
        [
            ("the call", f"{statistics.median(took):.0f}"),
            ("longest wait of a connection during it", f"{statistics.median(waited):.1f}"),
        ],
    )
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
