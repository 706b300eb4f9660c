"""A server of MQTT that does what a test says, well or badly, packet by packet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqtt.peers import WAIT, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Peer(Client):
    """The gateway's connection for one client. `first` is what it has sent first, the CONNECT."""

    first: bytes = b""

    def reset(self) -> None:
        """End the connection with a reset."""
        reset(self.writer)


class Scripted:
    """A server. `accept` gives the connections that say something: a check says nothing."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self.address: str = ""

    async def accept(self) -> Peer:
        return await asyncio.wait_for(self._peers.get(), WAIT)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        peer = Peer(reader, writer)
        with contextlib.suppress(asyncio.TimeoutError):
            peer.first = await peer.packet()
        if peer.first:
            self._peers.put_nowait(peer)
        else:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def scripted(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Scripted]:
    """Run a server on loopback. It reads no PROXY header."""
    server = Scripted()
    listening = await asyncio.start_server(server.serve, host, port)
    server.address = f"{host}:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        server.close()
        await asyncio.sleep(0)


def behind(*servers: str, **options: Any) -> dict[str, Any]:
    """Sections of a configuration for servers that read no header, and are looked at once."""
    options = {"proxy_protocol": "off", "check": {"interval": 3600}, **options}
    return {"backend": {"upstream": {"servers": list(servers), **options}}, "amqtt": {}}


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, whatever has been read of it."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def never(_: Any) -> bool:
    """Decide about no login: a plugin of `auth`."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
