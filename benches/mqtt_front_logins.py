"""How much Python a login through the front of MQTT servers takes, and how many there are a second.

The server behind is this program too, in a process of its own: it answers each CONNECT at once, so that what is measured is
the front. The CPU of the front's event loop thread is Python's; that of the others is Rust's.

    python benches/mqtt_front_logins.py [logins]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from typing import Any

from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect

WELCOME, DISCONNECT = b"\x20\x02\x00\x00", b"\xe0\x00"
AT_ONCE = 64


def answer_all(port: Any) -> None:
    """Be the server."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.startswith(b"\x10"):
                self.transport.write(WELCOME)
            if data.endswith(DISCONNECT):
                self.transport.close()

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=4096)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    _on_a_fast_loop(serve())


def log_in(port: int, count: int, done: Any) -> None:
    """Be the clients."""

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(Connect(f"device-{number}", True, 60, None, "user", b"password").encode())
        assert await reader.readexactly(4) == WELCOME
        writer.write(DISCONNECT)
        await reader.read()
        writer.close()

    async def all_of_them() -> None:
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                await one(number)

        began = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        done.send(time.perf_counter() - began)

    _on_a_fast_loop(all_of_them())


async def measure(server: int, count: int) -> None:
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0"}},
            "store": "sqlite::memory:",
            "backend": {"upstream": {"servers": [f"127.0.0.1:{server}"], "proxy_protocol": "off"}},
        }
    )
    async with BrokerService(config) as service:
        listener = service.listening["tcp"].listener
        assert listener is not None
        here, there = multiprocessing.Pipe()
        clients = multiprocessing.Process(target=log_in, args=(listener.getsockname()[1], count, there))
        python, everything = time.thread_time(), time.process_time()
        clients.start()
        seconds = await asyncio.to_thread(here.recv)
        while service.metrics.disconnects["tcp", "disconnect"] < count:  # noqa: ASYNC110 (no event says it)
            await asyncio.sleep(0.01)
        python, everything = time.thread_time() - python, time.process_time() - everything
        clients.join()
    print(
        f"{count} logins: {python / count * 1e6:.0f} us of Python each (login, row, audit, end),"
        f" {(everything - python) / count * 1e6:.0f} us of Rust; {count / seconds:.0f} a second,"
        f" load {os.getloadavg()[0]:.1f}"
    )


def _on_a_fast_loop(work: Any) -> None:
    import uvloop

    uvloop.run(work)


def main() -> None:
    multiprocessing.set_start_method("spawn")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=answer_all, args=(there,), daemon=True)
    server.start()
    asyncio.run(measure(here.recv(), count))
    server.terminate()


if __name__ == "__main__":
    main()
