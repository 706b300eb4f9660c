"""The proxies of the demo. They have a port for each pretended client, and send a header with its address."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from proxyproto_rs import Header, open_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ..model.connection import Address
    from .clients import Pretended

    Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

_CHUNK = 64 * 1024  # bytes


class Proxy(Protocol):
    """Stands between the demo's clients and its broker."""

    async def open(self, clients: Sequence[Pretended], broker: Address) -> dict[str, int]:
        """Listen on 127.0.0.1. Return the port of each client, by its client id."""

    async def close(self) -> None:
        """Stop, and end the open connections."""


class Forwarder:
    """A proxy in this process.

    It opens a connection to the broker for each client connection, and sends the header first.

    With `headers` False it sends no headers.
    """

    def __init__(self, *, headers: bool = True) -> None:
        self._headers = headers
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, clients: Sequence[Pretended], broker: Address) -> dict[str, int]:
        """Listen on a port for each client."""
        ports = {}
        for client in clients:
            header = client.header(broker) if self._headers else None
            server = await asyncio.start_server(self._serving(broker, header), "127.0.0.1", 0)
            self._servers.append(server)
            ports[client.client_id] = server.sockets[0].getsockname()[1]
        return ports

    async def close(self) -> None:
        """Close the ports and the connections."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serving(self, broker: Address, header: Header | None) -> Serving:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with contextlib.closing(writer), contextlib.suppress(OSError):
                if header is None:
                    there, back = await asyncio.open_connection(*broker)
                else:
                    there, back = await open_connection(*broker, header=header)
                with contextlib.closing(back):
                    await _until_one_ends(_copy(reader, back), _copy(there, writer))

        return forward


class HAProxy:
    """A real HAProxy, configured as the manual shows, except for the pretended source addresses."""

    def __init__(self) -> None:
        found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise FileNotFoundError("haproxy is not installed (apt-get install haproxy)")
        self._program = found
        self._process: asyncio.subprocess.Process | None = None
        self._stack = contextlib.ExitStack()

    async def open(self, clients: Sequence[Pretended], broker: Address) -> dict[str, int]:
        """Start HAProxy with a port for each client."""
        sockets = {client.client_id: self._stack.enter_context(_listening()) for client in clients}
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="proxyproto-rs-")))
        config = folder / "haproxy.cfg"
        fds = {client_id: sock.fileno() for client_id, sock in sockets.items()}
        config.write_text(haproxy_config(clients, fds, broker), "ascii")
        # HAProxy inherits listening sockets, so nobody must wait for it or guess a free port.
        self._process = await asyncio.create_subprocess_exec(
            self._program, "-db", "-q", "-f", str(config), pass_fds=list(fds.values())
        )
        return {client_id: sock.getsockname()[1] for client_id, sock in sockets.items()}

    async def close(self) -> None:
        """End HAProxy, and close the ports."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        self._stack.close()


def haproxy_config(clients: Sequence[Pretended], fds: dict[str, int], broker: Address) -> str:
    """Return a configuration with a frontend for each client, and a backend for each version of the header."""
    host, port = broker
    lines = ["global", "  maxconn 100", "defaults", "  mode tcp", "  timeout connect 5s"]
    lines += ["  timeout client 90s", "  timeout server 90s"]
    for client in clients:
        family = "ipv6" if ":" in client.address[0] else "ipv4"
        lines += [
            f"frontend {client.client_id}",
            f"  bind fd@{fds[client.client_id]}",
            f"  tcp-request connection set-src {family}({client.address[0]})",
            f"  tcp-request connection set-src-port int({client.address[1]})",
            f"  tcp-request connection set-dst {family}({client.destination(broker)[0]})",
            f"  default_backend mqtt-v{client.version}",
        ]
    for version, option in ((1, "send-proxy"), (2, "send-proxy-v2")):
        lines += [f"backend mqtt-v{version}", f"  server broker {host}:{port} {option}"]
    return "\n".join(lines) + "\n"


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


async def _until_one_ends(*ways: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
