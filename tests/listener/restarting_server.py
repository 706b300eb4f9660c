"""A server for test_restart: echoes four bytes to each connection; on SIGTERM it drains, serves what it has, and ends.

Argument: `fd N` (a listening socket is passed), `systemd` (one is passed as systemd does it), or `port N` (bind it, shared).
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import Any

from proxyproto_rs import Listener


async def main(how: str, *number: str) -> None:
    options: dict[str, Any] = {"trusted": ["127.0.0.0/8"]}
    match how:
        case "fd":
            listener = Listener.adopt(socket.socket(fileno=int(number[0])), **options)
        case "systemd":
            listener = Listener.from_systemd("app.socket", **options)
        case _:
            listener = Listener("127.0.0.1", int(number[0]), reuse_port=True, **options)
    handlers: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        task.add_done_callback(handlers.discard)
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    server = await listener.start_server(echo)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listener.drain)
    print("ready", flush=True)
    await server.wait_closed()
    while handlers:
        await asyncio.wait(handlers)


asyncio.run(main(*sys.argv[1:]))
