"""What an idle session behind the front costs, in resident memory of the whole process: Python's record of it included.

    python benches/mqtt_idle.py [SESSIONS]

The clients are one process, the server behind is another; neither is counted. Each session takes two descriptors of the
front: where the hard limit forbids so many, there are as many sessions as it allows. Memory that sessions have used stays
with the process, so what shows a leak is whether as many that come again take more.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rounds import table

from proxyproto_rs import Header
from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect

SESSIONS = 10_000
WARM_UP = 100
"""Sessions that come before the first look, so that code and tables are there."""
DESCRIPTORS = 200
"""What a process has open besides its sessions."""
WELCOME = b"\x20\x02\x00\x00"


def main() -> None:
    multiprocessing.set_start_method("spawn")
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS
    allowed = _descriptors(2 * (wanted + WARM_UP) + DESCRIPTORS)
    count = min(wanted, (allowed - DESCRIPTORS) // 2 - WARM_UP)
    print(
        f"{count} idle sessions, as many as {allowed} descriptors allow:"
        if count < wanted
        else f"{count} idle sessions:"
    )
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        _make_certificate()
        for kind in ("tcp", "ssl"):
            before, first, second = measure(kind, count)
            each = [f"{kilobytes / count:.2f}" for kilobytes in (first - before, second - first)]
            rows.append([kind, each[0], f"{first / 1024:.0f}", each[1]])
    table(["listener", "KiB a session", "MiB in all", "KiB more a session, the second time"], rows)
    print(f"load {os.getloadavg()[0]:.1f}")


def measure(kind: str, count: int) -> tuple[int, int, int]:
    """Return the resident KiB of a front before the sessions, with them, and with as many that have come after them."""
    server_end, server_there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=answer_all, args=(server_there,), daemon=True)
    server.start()
    front_end, front_there = multiprocessing.Pipe()
    front = multiprocessing.Process(target=serve, args=(kind, server_end.recv(), front_there))
    front.start()
    port = front_end.recv()
    context = ssl.create_default_context(cafile="server.pem") if kind == "ssl" else None

    def resident(sessions: int) -> int:
        front_end.send(sessions)
        return int(front_end.recv())

    _log_in(port, WARM_UP, "warm-up", context)
    before = resident(WARM_UP)
    loads = []
    for _ in range(2):
        clients = _log_in(port, count, "device", context)
        loads.append(resident(count + WARM_UP))
        for client in clients:
            client.close()
        resident(WARM_UP)
    front_end.send(None)
    front.join()
    server.terminate()
    server.join()
    return before, loads[0], loads[1]


KEPT: list[socket.socket] = []
"""The warm-up's."""


def _log_in(port: int, count: int, name: str, context: ssl.SSLContext | None) -> list[socket.socket]:
    """Open sessions. The clients' own memory must not matter, so nothing of TLS is kept once they have logged in."""
    clients = []
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        address = (f"10.0.{number >> 8}.{number & 255}", 40000)
        client.sendall(Header.v2(address, ("198.51.100.1", 1883)).encode())
        login = Connect(f"{name}-{number:05}", True, 0, None, "user", b"password").encode()
        answer = _ask(client, login) if context is None else _ask_in_tls(client, login, context)
        assert answer == WELCOME, answer
        clients.append(client)
    if name == "warm-up":
        KEPT.extend(clients)
    return clients


def _ask(client: socket.socket, login: bytes) -> bytes:
    client.sendall(login)
    return client.recv(4)


def _ask_in_tls(client: socket.socket, login: bytes, context: ssl.SSLContext) -> bytes:
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    is_sent = False
    while True:
        try:
            if not is_sent:
                tls.do_handshake()
                tls.write(login)
                is_sent = True
            return tls.read(4)
        except ssl.SSLWantReadError:
            if sent.pending:
                client.sendall(sent.read())
            received.write(client.recv(65536))


def serve(kind: str, server: int, commands: Any) -> None:
    """Be the front."""
    _descriptors(1 << 20)
    tls = {"tls": {"certfile": "server.pem", "keyfile": "key.pem"}} if kind == "ssl" else {}
    config = BrokerConfig.model_validate(
        {
            "listeners": {
                kind: {
                    "bind": "127.0.0.1:0",
                    "proxy_protocol": "required",
                    "proxy": {"trusted": ["127.0.0.1"]},
                    **tls,
                }
            },
            "store": "sqlite::memory:",
            "backend": {"upstream": {"servers": [f"127.0.0.1:{server}"], "proxy_protocol": "off"}},
        }
    )

    async def run() -> None:
        async with BrokerService(config) as service:
            listener = service.listening[kind].listener
            assert listener is not None
            commands.send(listener.getsockname()[1])
            while (expected := await asyncio.to_thread(commands.recv)) is not None:
                while service.sessions.connected != expected:  # noqa: ASYNC110 (no event says it)
                    await asyncio.sleep(0.01)
                gc.collect()
                commands.send(_resident())

    asyncio.run(run())


def answer_all(port: Any) -> None:
    """Be the server."""
    _descriptors(1 << 20)

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.startswith(b"\x10"):
                self.transport.write(WELCOME)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=4096)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    import uvloop

    uvloop.run(run())


def _resident() -> int:
    """Return the resident memory of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def _descriptors(wanted: int) -> int:
    """Allow so many descriptors, or as many as may be; return how many may be open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, PermissionError):
            continue
        break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _make_certificate() -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *key, "-days", "1", "-out", "server.pem", *name]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
