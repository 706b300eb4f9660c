"""A broker in a process of its own: ours, or amqtt alone, for tests that look at either from outside.

`python -m mqtt.child gate|plain CONFIG`, with CONFIG a JSON object of sections; the first line on standard output is the
port. SIGUSR1 writes the sessions that amqtt's table holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from typing import Any

from amqtt.broker import Broker

from . import plugins
from .peers import running

PLUGINS = {**plugins.ALL, "mqtt.plugins.Reporter": {}}


async def plain() -> tuple[Broker, int]:
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}, "plugins": PLUGINS})
    await broker.start()
    (socket,) = broker._servers["default"].instance.sockets
    return broker, socket.getsockname()[1]


async def gate(stack: contextlib.AsyncExitStack, config: dict[str, Any]) -> tuple[Broker, int]:
    broker = await stack.enter_async_context(running(amqtt={"plugins": PLUGINS}, **config))
    return broker.service.broker, broker.address()[1]


async def main(kind: str, config: dict[str, Any]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await serve(*await (plain() if kind == "plain" else gate(stack, config)))


async def serve(broker: Broker, port: int) -> None:

    def dump() -> None:
        states = {name: session.transitions.state for name, (session, _) in broker.sessions.items()}
        write({"sessions": states})

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump)
    write({"port": port})
    await asyncio.get_running_loop().create_future()


def write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
