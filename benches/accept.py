"""What a connection costs a server under load: header, request, reply and end, in CPU time of its threads.

    python benches/accept.py [ROUNDS]

The load runs on core 1. The server runs on core 0. In a second part it uses both cores, which it shares with the load.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from processes import Server, connect
from rounds import Spread, table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 25
CONNECTIONS = 2000
CONCURRENCY = 32

# (ours, the rival, which of our threads count, the ratio to reach)
TARGETS = [
    ("create_server", "bare create_server", "main", 0.75),
    ("create_server", "bare create_server", "total", 1.0),
    ("create_server, fresh", "bare create_server, fresh", "main", 0.75),
    ("create_server, fresh", "bare create_server, fresh", "total", 1.0),
    ("start_server", "bare start_server", "main", 0.9),
    ("create_server, uvloop", "bare create_server, uvloop", "main", 0.95),
    ("create_server", "icgood start_server", "total", 0.45),
    ("start_server(sock=)", "icgood start_server", "total", 0.65),
]

# Each with the header that it expects.
CONTESTANTS = {
    "bare create_server": "none",
    "create_server": "v2",
    "bare create_server, fresh": "none",
    "create_server, fresh": "v2",
    "create_server, on demand": "v2",
    "create_server(sock=)": "v2",
    "bare start_server": "none",
    "start_server": "v2",
    "start_server(sock=)": "v2",
    "start_server(sock=), on demand": "v2",
    "bare create_server, uvloop": "none",
    "create_server, uvloop": "v2",
    "bare start_server, uvloop": "none",
    "start_server, uvloop": "v2",
    "icgood start_server": "v2",
    "aiosmtpd start_server": "v2",
    "twisted": "v2",
    "epoll": "v2",
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(start(name)) for name in CONTESTANTS}
        print(
            f"{rounds} rounds of {CONNECTIONS} connections, {CONCURRENCY} at a time, after one to warm up.\n"
        )
        print("The server on one core, the load on the other; CPU in us a connection:\n")
        results = measure(servers, rounds, {0})
        report(results)
        print("Ratios of the same round (quartiles):\n")
        table(["ours", "rival", "our CPU", "ratio", "to reach"], [compare(results, *row) for row in TARGETS])
        print("The server on both cores, which the load shares:\n")
        report(measure(servers, max(rounds // 3, 1), {0, 1}))


def start(name: str) -> Server:
    return Server.epoll({0}) if name == "epoll" else Server.python(name, {0})


def measure(servers: dict[str, Server], rounds: int, cores: set[int]) -> dict[str, list[dict[str, Any]]]:
    names = list(servers)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for server in servers.values():
        server.pin(cores)
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            server = servers[name]
            before = server.cpu()
            result = connect(server, CONTESTANTS[name], CONNECTIONS, CONCURRENCY, core=1)
            spent = {kind: (cpu - before[kind]) / CONNECTIONS * 1e6 for kind, cpu in server.cpu().items()}
            if number >= 0:
                results[name].append({**result, **spent, "total": sum(spent.values())})
    return results


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    columns = ["server", "main thread", "acceptor thread", "total", "p50 us", "p99 us", "connections/s"]
    table(columns, [row(name, rounds) for name, rounds in results.items()])


def row(name: str, rounds: Sequence[dict[str, Any]]) -> list[str]:
    def median(key: str) -> float:
        return Spread(result[key] for result in rounds).median

    rate = Spread(result["connections"] / result["seconds"] for result in rounds).median
    cpu = [f"{median(kind):.1f}" for kind in ("main", "acceptor", "total")]
    return [name, *cpu, f"{median('p50_us'):.0f}", f"{median('p99_us'):.0f}", f"{rate:.0f}"]


def compare(
    results: dict[str, list[dict[str, Any]]], ours: str, rival: str, kind: str, target: float
) -> list[Any]:
    pairs = zip(results[ours], results[rival], strict=True)
    spread = Spread(mine[kind] / other["total"] for mine, other in pairs)
    return [ours, rival, {"main": "Python thread", "total": "both threads"}[kind], spread, target]


if __name__ == "__main__":
    main()
