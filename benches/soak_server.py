"""The server of the soak: it tells each client its own address, then echoes. Its options change all the time.

    python benches/soak_server.py

Prints its address, then a line of JSON with its counters for each line of input, and ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import sys

from proxyproto_rs import AddressSet, Listener

# benches/soak_traffic.py relies on these.
OPTIONS = {
    "trusted": ["127.0.0.0/9"],
    "header_timeout": 5.0,
    "max_pending": 500,
    "max_rate_per_client": 50.0,
    "burst_per_client": 100,
}
DENIED = "203.0.113.0/24"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def change(listener: Listener, deny: AddressSet) -> None:
    """Change lists and options ten times a second, to values that decide the same."""
    for number in itertools.count():
        deny.add(f"198.18.{number % 256}.0/24", expires=5.0)
        listener.update(**OPTIONS, max_header_size=4096 if number % 2 else 4095)
        await asyncio.sleep(0.1)


async def main() -> None:
    logging.disable()
    deny = AddressSet([DENIED])
    with Listener("127.0.0.1", 0, deny=deny, **OPTIONS) as listener:
        async with await listener.start_server(answer):
            changing = asyncio.create_task(change(listener, deny))
            print(*listener.getsockname(), sep=":", flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                stats = listener.stats()
                now = {"pending": stats.pending, "open": stats.open, "pauses": stats.pauses}
                print(json.dumps({"outcomes": dict(stats), **now}), flush=True)
            changing.cancel()


if __name__ == "__main__":
    asyncio.run(main())
