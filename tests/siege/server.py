"""Run as a program: count each connection's bytes, answer the number, and end with standard input."""

from __future__ import annotations

import asyncio
import sys

from proxyproto_rs import Listener


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    received = 0
    while chunk := await reader.read(65536):
        received += len(chunk)
    writer.write(str(received).encode())
    writer.close()


async def main() -> None:
    options = {"backlog": 64, "header_timeout": 0.2, "trusted": ["127.0.0.0/8"]}
    with Listener("127.0.0.1", 0, **options) as listener:  # type: ignore[arg-type]
        async with await asyncio.start_server(count, sock=listener):
            print(listener.getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
