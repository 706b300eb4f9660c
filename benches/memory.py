"""What a silent connection costs a server, in resident memory.

    python benches/memory.py

Each connection needs a file descriptor at both ends: ulimit -n must allow that.
"""

from __future__ import annotations

from processes import Server, silent
from rounds import table

CONNECTIONS = 15_000
CORES = {0, 1}
TARGET = 0.6

CONTESTANTS = {
    "create_server": lambda: Server.python("create_server, eager", CORES),
    "epoll": lambda: Server.epoll(CORES, "eager"),
    "bare create_server": lambda: Server.python("bare create_server", CORES),
    "bare start_server": lambda: Server.python("bare start_server", CORES),
    "icgood start_server": lambda: Server.python("icgood start_server", CORES),
    "aiosmtpd start_server": lambda: Server.python("aiosmtpd start_server", CORES),
    "twisted": lambda: Server.python("twisted", CORES),
}


def main() -> None:
    print(f"{CONNECTIONS} silent connections; KiB of resident memory for each:\n")
    rows = []
    for name, start in CONTESTANTS.items():
        with start() as server:
            before = server.resident()
            with silent(server, CONNECTIONS):
                rows.append([name, f"{(server.resident() - before) / CONNECTIONS / 1024:.2f}"])
                # Before the others end it, with much to say about each.
                server.close()
    table(["server", "KiB a connection"], rows)
    print(f"To reach with create_server: {TARGET}.")


if __name__ == "__main__":
    main()
