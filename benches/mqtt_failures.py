"""What recording refused clients costs good logins: 10,000 failed logins from 1,000 addresses, with good ones between.

    python benches/mqtt_failures.py [ROUNDS]

The broker has core 0, the clients core 1. In turns with recording and without; a good login is timed from its connection
to its CONNACK, while 20 failing ones are under way. Afterwards the rows are read from the store's file.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from amqtt.plugins.base import BaseAuthPlugin
from processes import HERE, Server
from rounds import Spread, in_turns, table

from proxyproto_rs import Header
from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect
from proxyproto_rs.mqtt.telling.logs import configure

if TYPE_CHECKING:
    from amqtt.session import Session

ROUNDS = 5
FAILURES, ADDRESSES, AT_A_TIME = 10_000, 1000, 20
MEASURES = ("the broker's CPU, ms a refused login", "good login, median ms", "good login, 99 % ms")


class Passwords(BaseAuthPlugin):
    """The quickest possible plugin."""

    async def authenticate(self, *, session: Session) -> bool:
        return session.password == "right"


async def serve(recording: str, path: str) -> None:
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "required"}},
            "proxy": {"trusted": ["127.0.0.1"]},
            "store": f"sqlite:{path}",
            "unauthorized": {"enabled": recording == "on"},
            "log": {"level": "ERROR"},
            "amqtt": {"plugins": {"mqtt_failures.Passwords": {}}},
        }
    )
    configure(config.log)
    async with BrokerService(config) as service:
        listener = service.listening["tcp"].listener
        assert listener is not None
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    os.sched_setaffinity(0, {1})
    results: dict[str, list[list[float]]] = {"on": [], "off": []}

    def one(recording: str) -> float:
        results[recording].append(attack(recording))
        return results[recording][-1][0]

    in_turns(rounds, {recording: lambda r=recording: one(r) for recording in ("off", "on")})
    rows = []
    for column, measure in enumerate(MEASURES):
        off, on = ([result[column] for result in results[recording]] for recording in ("off", "on"))
        ratio = Spread(a / b for a, b in zip(on, off, strict=True))
        rows.append([measure, Spread(off), Spread(on), ratio])
    table(["", "without recording", "with", "ratio of the same round"], rows)
    grown = {recording: max(result[3] for result in results[recording]) for recording in results}
    print(f"MiB of memory grown by: {grown['off']:.1f} without recording, {grown['on']:.1f} with.")
    print(
        f"Rows, attempts and addresses were right at most {max(r[4] for r in results['on']):.0f} ms afterwards."
    )


def attack(recording: str) -> list[float]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "broker.db"
        command = [sys.executable, str(HERE / "mqtt_failures.py"), "serve", recording, str(path)]
        with Server(command, {0}) as server:
            host, _, port = server.address.rpartition(":")
            address = (host, int(port))
            log_in(address, 0)  # to warm up
            before = server.resident()
            spent = sum(server.cpu().values())
            good = []
            for first in range(0, FAILURES, AT_A_TIME):
                sockets = [fail(address, number) for number in range(first, first + AT_A_TIME)]
                good.append(log_in(address, first + 1))
                for sock in sockets:
                    answered(sock, b"\x20\x02\x00\x05")
            spent = (sum(server.cpu().values()) - spent) * 1000 / FAILURES
            grown = (server.resident() - before) / 2**20
            late = wait_for_rows(path) if recording == "on" else 0.0
    good.sort()
    return [spent, good[len(good) // 2] * 1000, good[len(good) * 99 // 100] * 1000, grown, late]


def fail(address: tuple[str, int], number: int) -> socket.socket:
    place = number % ADDRESSES
    return send(address, f"10.0.{place // 250}.{place % 250 + 1}", f"dev-{place}", b"wrong")


def log_in(address: tuple[str, int], number: int) -> float:
    since = time.monotonic()
    sock = send(address, "192.0.2.10", f"good-{number}", b"right")
    if sock.recv(4) != b"\x20\x02\x00\x00":
        raise RuntimeError("a good login was refused")
    seconds = time.monotonic() - since
    sock.sendall(b"\xe0\x00")
    answered(sock, b"")
    return seconds


def send(address: tuple[str, int], client: str, client_id: str, password: bytes) -> socket.socket:
    sock = socket.create_connection(address)
    packet = Connect(client_id, clean_session=True, keep_alive=60, username="u", password=password).encode()
    sock.sendall(Header.v2((client, 50123), ("198.51.100.1", 1883)).encode() + packet)
    return sock


def answered(sock: socket.socket, expected: bytes) -> None:
    answer = b""
    while chunk := sock.recv(1024):
        answer += chunk
    sock.close()
    if answer != expected:
        raise RuntimeError(f"answered {answer!r}")


def wait_for_rows(path: Path) -> float:
    """Wait until the table is right; return the milliseconds that it took."""
    since = time.monotonic()
    expected = (ADDRESSES, FAILURES, ADDRESSES)
    query = "SELECT count(*), coalesce(sum(attempts), 0), count(DISTINCT ip_address) FROM unauthorized_client"
    db = sqlite3.connect(path)
    while (found := db.execute(query).fetchone()) != expected:
        if time.monotonic() > since + 10:
            raise RuntimeError(f"rows, attempts, addresses are {found}, not {expected}")
    db.close()
    return (time.monotonic() - since) * 1000


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
    else:
        main()
