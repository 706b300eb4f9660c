"""Brokers in processes of their own, as operators run them, that are the nodes of one cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

from mqtt.peers import WELCOME, Client, connect, dial, publish, subscribe, until
from peers import free_port
from proxyproto_rs._core import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from proxyproto_rs.mqtt.model.connection import Address

PATIENCE = 60.0  # seconds; a test that waits so long for a cluster has failed


def is_built() -> bool:
    """Whether the extension knows clusters: building it so needs protoc."""
    try:
        Broker.check({"cluster": {"node": 1, "peers": {1: "127.0.0.1:1", 2: "127.0.0.1:3"}}}, [])
    except ValueError:
        return False
    return True


class Node:
    """One node. It can be killed, and started again."""

    def __init__(self, number: int, peers: dict[int, str], directory: Path) -> None:
        self.number = number
        self.audit = directory / f"audit-{number}.jsonl"
        self._file = directory / f"node-{number}.yaml"
        self.lines: list[str] = []
        port = int(peers[number].rpartition(":")[2])
        self.peer_ports = (port, port + 1)
        self._reading: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process | None = None
        config = {
            "node_id": f"n{number}",
            "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "off"}},
            "store": "sqlite::memory:",
            "audit": {"file": str(self.audit)},
            "auth": "anonymous",
            "backend": {"embedded": {"cluster": {"node": number, "peers": peers}}},
        }
        self._file.write_text(json.dumps(config))

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        names = re.compile(r"MQTT_|LISTENER_|HTTP_|SECURITY_|SQL_|BLOCKED_|JOURNAL_STREAM|STATE_DIRECTORY")
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxyproto_rs.cli", "broker", "--config", str(self._file)),
            env={name: value for name, value in os.environ.items() if not names.match(name)},
            stderr=asyncio.subprocess.PIPE,
        )
        self.lines.clear()
        async for line in self._stderr():
            if "started listeners=" in line:
                break
        where = re.search(r"listening on \S+:(\d+), ", "".join(self.lines))
        assert where, self.lines
        self.address: Address = ("127.0.0.1", int(where[1]))
        self._reading = [asyncio.create_task(self._read())]

    async def _stderr(self) -> AsyncIterator[str]:
        assert self.process is not None
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            yield self.lines[-1]

    async def _read(self) -> None:
        async for _ in self._stderr():
            pass

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        """Kill it, if it runs."""
        if self.process is None:
            return
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self._reading)

    @contextlib.asynccontextmanager
    async def client(self, name: str, *, clean: bool = True, version: int = 4) -> AsyncIterator[Client]:
        """A client that has logged in without a user name."""
        if version == 5:
            first = connect5(name, clean=clean)
        else:
            first = connect(name, username=None, password=None, clean_session=clean).encode()
        async with dial(self.address, first, source=None) as client:
            client.connack = await client.packet()
            assert client.connack[3:4] == b"\0", (client.connack, self.lines)
            yield client

    async def until_lets_in(self) -> None:
        """Wait until a client may log in: not while the nodes choose another leader."""

        async def lets_in() -> bool:
            first = connect("probe", username=None, password=None).encode()
            async with dial(self.address, first, source=None) as client:
                return await client.packet() == WELCOME

        await until(lets_in, PATIENCE)

    def ends(self, client_id: str) -> list[str]:
        """How the sessions of this client id ended here, as the audit log says."""
        rows = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [
            row["reason"]
            for row in rows
            if row["event"] == "client.disconnected" and row["clientId"] == client_id
        ]


def connect5(name: str, *, clean: bool) -> bytes:
    """A CONNECT of MQTT 5 whose session is kept for ten minutes."""
    expiry = b"\x05\x11" + (600).to_bytes(4, "big")
    body = b"\0\4MQTT\5" + bytes((2 if clean else 0,)) + b"\0\x3c" + expiry
    body += len(name).to_bytes(2, "big") + name.encode()
    return bytes((0x10, len(body))) + body


@contextlib.contextmanager
def two_free_ports() -> Iterator[int]:
    """A port on which nothing listens, and neither on the one behind it."""
    while True:
        with free_port() as port, socket.socket() as behind:
            behind.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            behind.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                behind.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            yield port
            return


@contextlib.asynccontextmanager
async def cluster(directory: Path, count: int = 3) -> AsyncIterator[list[Node]]:
    """A cluster on loopback, whose nodes all serve."""
    async with contextlib.AsyncExitStack() as stack:
        peers = {n: f"127.0.0.1:{stack.enter_context(two_free_ports())}" for n in range(1, count + 1)}
        nodes = [Node(number, peers, directory) for number in peers]
        for node in nodes:
            stack.push_async_callback(node.end)
        await asyncio.gather(*(node.start() for node in nodes))
        yield nodes


async def crosses(sender: Client, receiver: Client, topic_filter: str) -> None:
    """Subscribe, and wait until a message arrives: other nodes know a subscription a little after its SUBACK."""
    topic = topic_filter.replace("#", "probe")
    await receiver.ask(subscribe(topic_filter, qos=2))
    arrived = asyncio.ensure_future(receiver.message())
    for _ in range(int(PATIENCE / 0.05)):
        sender.send(publish(topic, b"probe"))
        if (await asyncio.wait({arrived}, timeout=0.05))[0]:
            break
    assert (await arrived).payload == b"probe"
    # What is still on its way is followed by this one.
    sender.send(publish(topic, b"last"))
    while (await receiver.message()).payload != b"last":
        pass
