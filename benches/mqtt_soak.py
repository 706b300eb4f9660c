"""Minutes of mixed MQTT at the embedded broker with persistence. It reports what comes, memory and descriptors.

    python benches/mqtt_soak.py [SECONDS]

Ten minutes by default. Ends with 1 if a message is missing, out of order or there twice, or if descriptors are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiomqtt
from processes import Server

SECONDS = 600.0
WARM_UP = 30.0
EVERY = 30.0
PAIRS = 30
"""Publishers that go on all the time, each with a subscriber of its own; a third for each QoS."""
PAUSE = 0.02  # between two messages of a publisher, in seconds
PATIENCE = 10.0  # seconds
COMERS = 20
"""Tasks whose clients come and go: with kept sessions and without, with wills, with each other's client ids."""
IDS = 60


class Traffic:
    """All clients, and what went wrong."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self.came = 0
        self.logins = 0
        self.wrong: Counter[str] = Counter()
        self._over = asyncio.Event()

    async def run(self) -> None:
        pairs = (self._pair(number, number % 3) for number in range(PAIRS))
        await asyncio.gather(*pairs, *(self._come_and_go() for _ in range(COMERS)))
        # A kept session whose client is away holds a descriptor (docs/embedded.md), so each of them is ended.
        for name in (*(f"sub-{number}" for number in range(PAIRS)), *(f"comer-{id}" for id in range(IDS))):
            async with self._client(name):
                pass

    def stop(self) -> None:
        self._over.set()

    def _client(self, name: str, *, clean: bool = True, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
        self.logins += 1
        return aiomqtt.Client(
            self._host,
            self._port,
            identifier=name,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=clean,
            will=will,
            timeout=PATIENCE,
        )

    async def _pair(self, number: int, qos: int) -> None:
        topic = f"pair/{number}"
        async with (
            self._client(f"sub-{number}", clean=number % 2 == 0) as subscriber,
            self._client(f"pub-{number}") as publisher,
        ):
            await subscriber.subscribe(topic, qos=qos)
            reading = asyncio.create_task(self._check(subscriber, qos))
            for count in itertools.count():
                await publisher.publish(topic, str(count), qos=qos)
                if self._over.is_set():
                    break
                await asyncio.sleep(PAUSE)
            await publisher.publish(topic, "end", qos=qos)
            await asyncio.wait_for(reading, PATIENCE)

    async def _check(self, subscriber: aiomqtt.Client, qos: int) -> None:
        expected = itertools.count()
        async for message in subscriber.messages:
            self.came += 1
            payload = str(message.payload, "ascii")
            if payload == "end":
                return
            if (wanted := next(expected)) != int(payload):
                self.wrong[f"QoS {qos}: not the next message"] += 1
                expected = itertools.count(max(wanted, int(payload)) + 1)

    async def _come_and_go(self) -> None:
        while not self._over.is_set():
            name = f"comer-{random.randrange(IDS)}"
            will = aiomqtt.Will(f"wills/{name}", "gone", qos=1) if random.random() < 0.5 else None
            client = self._client(name, clean=random.random() < 0.5, will=will)
            # Another task may take the client id over at any time.
            with contextlib.suppress(aiomqtt.MqttError):
                async with client:
                    await self._use(client)
            if (sock := client._client.socket()) is not None:
                sock.close()  # aiomqtt has left it open

    async def _use(self, client: aiomqtt.Client) -> None:
        await client.subscribe([("comers/#", 1), ("wills/#", 0)])
        for _ in range(random.randrange(20)):
            topic = f"comers/{random.randrange(IDS)}"
            payload = random.choice([b"", random.randbytes(200)])
            await client.publish(topic, payload, qos=random.randrange(3), retain=True)
            await asyncio.sleep(PAUSE)
        sock = client._client.socket()
        if sock is not None and random.random() < 0.3:
            # It goes without a DISCONNECT, and its will goes out.
            sock.shutdown(socket.SHUT_RDWR)


async def soak(server: Server, seconds: float) -> bool:
    traffic = Traffic(server.address)
    files = server.open_files()
    print(f"before: RSS {server.resident() / 1024:.0f} KiB, {files} descriptors\n")
    print(f"{'seconds':>8} {'messages/s':>10} {'logins/s':>8} {'RSS KiB':>8} {'fds':>5} {'wrong':>6}")
    started = last = time.monotonic()
    came = logins = 0

    def line() -> None:
        nonlocal last, came, logins
        now = time.monotonic()
        messages, entered = (traffic.came - came) / (now - last), (traffic.logins - logins) / (now - last)
        last, came, logins = now, traffic.came, traffic.logins
        print(
            f"{now - started:8.0f} {messages:10.0f} {entered:8.0f} {server.resident() / 1024:8.0f} "
            f"{server.open_files():5} {traffic.wrong.total():6}",
            flush=True,
        )

    # aiomqtt leaves futures behind when a connection ends.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    running = asyncio.create_task(traffic.run())
    await asyncio.sleep(min(WARM_UP, seconds / 4))
    line()
    memory = server.resident()
    while (left := started + seconds - time.monotonic()) > 0:
        await asyncio.sleep(min(EVERY, left))
        line()
    traffic.stop()
    await running
    deadline = time.monotonic() + PATIENCE
    while server.open_files() > files and time.monotonic() < deadline:  # noqa: ASYNC110 (of another process)
        await asyncio.sleep(0.1)
    line()
    print(f"\n{traffic.came} messages checked, {traffic.logins} logins")
    print(f"RSS {memory / 1024:.0f} -> {server.resident() / 1024:.0f} KiB since the warm-up")
    print(f"descriptors {files} -> {server.open_files()}")
    for what, count in traffic.wrong.most_common():
        print(f"wrong: {count} times {what}")
    return not traffic.wrong and server.open_files() <= files


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    logging.disable()  # paho tells of each connection that ends
    script = str(Path(__file__).with_name("mqtt_server.py"))
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, script, "kept", directory]
        with Server(command, os.sched_getaffinity(0)) as server:
            sys.exit(0 if asyncio.run(soak(server, seconds)) else 1)


if __name__ == "__main__":
    main()
