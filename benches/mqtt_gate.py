"""What the gate costs beyond amqtt alone: CPU time of a login and memory of an idle session, in one run.

    python benches/mqtt_gate.py [ROUNDS]

The broker has core 0, the clients core 1. A login is a connection, CONNECT, CONNACK, DISCONNECT, and the end; clients of the
gate send a PROXY header too, which amqtt alone cannot read. Each connection has another client id, and a clean session.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import sys

from processes import HERE, Server
from rounds import Spread, in_turns, table

from proxyproto_rs import Header
from proxyproto_rs.mqtt.model.login import Connect

ROUNDS = 15
LOGINS = 1000
AT_A_TIME = 25
SESSIONS = 3000
KINDS = ("plain", "gate", "service")
MAX_MILLISECONDS, MAX_KIB = 0.3, 10.0

HEADER = Header.v2(("192.0.2.10", 50123), ("198.51.100.1", 1883)).encode()
WELCOME, DISCONNECT = b"\x20\x02\x00\x00", b"\xe0\x00"

_numbers = itertools.count()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {1})
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(start(kind)) for kind in KINDS}
        show_logins(servers, rounds)
    show_memory()


def show_logins(servers: dict[str, Server], rounds: int) -> None:
    print(f"{rounds} rounds of {LOGINS} logins, {AT_A_TIME} at a time; CPU of all threads, ms a login:\n")
    for kind, server in servers.items():
        log_in(kind, server)  # to warm up
    spent = in_turns(rounds, {kind: lambda k=kind: log_in(k, servers[k]) for kind in KINDS})
    rows = []
    for kind in KINDS:
        over = Spread(ours - plain for ours, plain in zip(spent[kind], spent["plain"], strict=True))
        rows.append([kind, Spread(spent[kind]), "" if kind == "plain" else over])
    table(["broker", "ms a login", "over plain, of the same round"], rows)
    print(f"To reach with gate: at most {MAX_MILLISECONDS} ms over plain.\n")


def show_memory() -> None:
    print(f"{SESSIONS} idle sessions; KiB of resident memory for each:\n")
    rows, plain = [], 0.0
    for kind in KINDS:
        with start(kind) as server, contextlib.ExitStack() as stack:
            # Not after a thousand: amqtt keeps those for a second, and how much of them is used again is chance.
            close(connect(kind, server))
            before = server.resident()
            for _ in range(SESSIONS // AT_A_TIME):
                for sock in connect(kind, server):
                    stack.enter_context(sock)
            each = (server.resident() - before) / SESSIONS / 1024
            server.close()
        plain = plain or each
        rows.append([kind, f"{each:.1f}", "" if kind == "plain" else f"{each - plain:.1f}"])
    table(["broker", "KiB a session", "over plain"], rows)
    print(f"To reach with gate: at most {MAX_KIB:.0f} KiB over plain.")


def start(kind: str) -> Server:
    # The whole broker writes a line for each login.
    return Server(["sh", "-c", f"exec {sys.executable} {HERE / 'mqtt_server.py'} {kind} 2>{os.devnull}"], {0})


def log_in(kind: str, server: Server) -> float:
    """Log in and out; return the broker's milliseconds of CPU for each login."""
    before = sum(server.cpu().values())
    for _ in range(LOGINS // AT_A_TIME):
        close(connect(kind, server))
    return (sum(server.cpu().values()) - before) * 1000 / LOGINS


def close(sockets: list[socket.socket]) -> None:
    """Send DISCONNECT, and wait until the broker has closed each connection."""
    for sock in sockets:
        sock.sendall(DISCONNECT)
    for sock in sockets:
        while sock.recv(1024):
            pass
        sock.close()


def connect(kind: str, server: Server) -> list[socket.socket]:
    """Open connections that are logged in."""
    host, _, port = server.address.rpartition(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(AT_A_TIME)]
    for sock in sockets:
        packet = Connect(f"device-{next(_numbers)}", clean_session=True, keep_alive=60).encode()
        sock.sendall(packet if kind == "plain" else HEADER + packet)
    for sock in sockets:
        answer = sock.recv(4)
        if answer != WELCOME:
            raise RuntimeError(f"{kind} answered {answer!r}")
    return sockets


if __name__ == "__main__":
    main()
