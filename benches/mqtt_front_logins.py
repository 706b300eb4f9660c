"""How much Python a login through the front of MQTT servers takes, and how many there are a second.

The server behind is this program too, in a process of its own: it answers each CONNECT at once, so that what is measured is
the front. The CPU of the threads that Python knows is Python's: the event loop's, the audit log's, the store's. That of the
others is Rust's. A login is the whole life of a client: its login, its end, and all that is told of both. amqtt, in this
process, has the same clients and log lines.

    python benches/mqtt_front_logins.py [LOGINS] [ROUNDS]
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rounds import Spread, ratio, table

from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect
from proxyproto_rs.mqtt.telling.logs import configure

WELCOME, DISCONNECT = b"\x20\x02\x00\x00", b"\xe0\x00"
AT_ONCE = 64
LOGINS, ROUNDS = 10_000, 3
AMQTT = "amqtt, log"
CONTESTANTS: dict[str, dict[str, Any]] = {
    "neither log nor audit": {"log": {"level": "ERROR"}},
    "log": {"log": {"level": "INFO"}},
    "log and audit": {"log": {"level": "INFO"}, "audit": {"file": "audit.jsonl"}},
    AMQTT: {
        "log": {"level": "INFO"},
        "amqtt": {"plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}},
    },
}


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


async def measure(server: int, count: int, sections: dict[str, Any]) -> list[float]:
    """Return microseconds of Python and of Rust for a login, and the logins a second."""
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0"}},
            "store": "sqlite::memory:",
            **({} if "amqtt" in sections else {"backend": behind(server)}),
            **sections,
        }
    )
    configure(config.log)
    async with BrokerService(config) as service:
        listener = service.listening["tcp"].listener
        assert listener is not None
        here, there = multiprocessing.Pipe()
        clients = multiprocessing.Process(target=log_in, args=(listener.getsockname()[1], count, there))
        python, everything = _python_seconds(), time.process_time()
        clients.start()
        seconds = await asyncio.to_thread(here.recv)
        while service.metrics.disconnects["tcp", "disconnect"] < count:  # noqa: ASYNC110 (no event says it)
            await asyncio.sleep(0.01)
        python, everything = _python_seconds() - python, time.process_time() - everything
        clients.join()
    return [python / count * 1e6, (everything - python) / count * 1e6, count / seconds]


def behind(server: int) -> dict[str, Any]:
    return {"upstream": {"servers": [f"127.0.0.1:{server}"], "proxy_protocol": "off"}}


def _python_seconds() -> float:
    """Return the CPU time of all threads that Python knows."""
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threading.enumerate() if thread.ident]
    return sum(map(time.clock_gettime, clocks))


def _on_a_fast_loop(work: Any) -> None:
    import uvloop

    uvloop.run(work)


def main() -> None:
    multiprocessing.set_start_method("spawn")
    arguments = [int(argument) for argument in sys.argv[1:]]
    count, rounds = (*arguments, *(LOGINS, ROUNDS)[len(arguments) :])
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=answer_all, args=(there,), daemon=True)
    server.start()
    port = here.recv()
    results: dict[str, list[list[float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        # As standard error is: each line is written at once.
        with Path("log").open("w", buffering=1) as log, contextlib.redirect_stderr(log):
            for _ in range(rounds):
                for name, sections in CONTESTANTS.items():
                    some = count // 5 if name == AMQTT else count
                    results[name].append(asyncio.run(measure(port, some, sections)))
    server.terminate()
    spent = {name: [python + rust for python, rust, _ in rows] for name, rows in results.items()}
    table(
        ["", "us of Python", "us of Rust", "logins a second", "CPU / amqtt's"],
        [
            [name, *map(Spread, zip(*rows, strict=True)), ratio(spent[name], spent[AMQTT])]
            for name, rows in results.items()
        ],
    )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
