"""What a storm of wrong passwords does to logins of users who are known: 200 a second from 2,400 addresses, for 12 s.

    python benches/mqtt_storm.py [ROUNDS]

The broker has core 0, the clients core 1. Who knows the passwords is amqtt's PasswordFile, or, in front of a server, a file,
a web service or a plugin. A file's are hashed with argon2 as argon2-cffi does it by default; the others take 0.1 s too. Each
address guesses once. Between, five good logins a second are timed from their connection to their CONNACK. The plugin's are
not remembered: it is asked each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from argon2 import PasswordHasher
from processes import HERE, Server
from rounds import Spread, table

from proxyproto_rs import Header
from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect
from proxyproto_rs.mqtt.telling.logs import configure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxyproto_rs.mqtt.model.login import Login

ROUNDS = 3
KINDS = ("amqtt", "file", "http", "plugin")
ARGON2 = 0.1  # seconds
SECONDS, WRONG, GOOD = 12, 200, 5  # the last two are logins a second
USERS = 5
ANSWERS = {b"\x20\x02\x00\x05": "wrong", b"\x20\x02\x00\x03": "too late", b"": "closed"}


async def serve(kind: str, users: str, server: str, asked: str) -> None:
    backend = {"upstream": {"servers": [f"127.0.0.1:{server}"], "proxy_protocol": "off"}}
    who_knows: dict[str, dict[str, Any]] = {
        "amqtt": {"amqtt": {"plugins": {"proxyproto_rs.mqtt.PasswordFile": {"password_file": users}}}},
        "file": {"backend": backend, "auth": [{"file": users}]},
        "http": {"backend": backend, "auth": [{"http": {"url": f"http://127.0.0.1:{asked}/"}}]},
        "plugin": {"backend": backend, "auth": [{"plugin": "mqtt_storm:is_right"}]},
    }
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "required"}},
            "proxy": {"trusted": ["127.0.0.1"]},
            "store": "sqlite::memory:",
            "log": {"level": "ERROR"},
            **who_knows[kind],
        }
    )
    configure(config.log)
    async with BrokerService(config) as service:
        listener = service.listening["tcp"].listener
        assert listener is not None
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


async def is_right(login: Login) -> bool:
    """Be the plugin."""
    await asyncio.sleep(ARGON2)
    return login.connect.password == b"right"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    os.sched_setaffinity(0, {1})
    results: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    answers = {kind: Counter[str]() for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            result, answered = asyncio.run(storm(kind))
            results[kind].append(result)
            answers[kind] += answered
    measures = (
        "good login, median ms",
        "good login, longest ms",
        "lost of 60",
        "MiB of memory grown by",
    )
    columns = [[Spread(column) for column in zip(*results[kind], strict=True)] for kind in KINDS]
    table(
        ["", *KINDS], [[name, *row] for name, row in zip(measures, zip(*columns, strict=True), strict=True)]
    )
    for kind, answered in answers.items():
        said = ", ".join(f"{count} {what}" for what, count in sorted(answered.items()))
        print(f"Guesses of {kind} were answered: {said}.")


async def storm(kind: str) -> tuple[list[float], Counter[str]]:
    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory) / "users.txt"
        users.write_text("".join(f"user-{n}:{PasswordHasher().hash('right')}\n" for n in range(USERS)))
        async with behind() as server, web_service() as service:
            command = [
                sys.executable,
                str(HERE / "mqtt_storm.py"),
                "serve",
                kind,
                str(users),
                server,
                service,
            ]
            with Server(command, {0}) as broker:
                host, _, port = broker.address.rpartition(":")
                return await attack((host, int(port)), broker)


@contextlib.asynccontextmanager
async def behind() -> AsyncIterator[str]:
    """Be the server behind, which lets everybody in. Give its port."""

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if await reader.read(1024):
                writer.write(b"\x20\x02\x00\x00")
                await reader.read()
        writer.close()

    async with await asyncio.start_server(welcome, "127.0.0.1", 0) as server:
        yield str(server.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def web_service() -> AsyncIterator[str]:
    """Be the web service. Give its port."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(ARGON2)
        return web.Response(status=204 if (await request.json())["password"] == "right" else 403)

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield str(runner.addresses[0][1])
    await runner.cleanup()


async def attack(address: tuple[str, int], server: Server) -> tuple[list[float], Counter[str]]:
    for number in range(USERS):
        await log_in(address, number)
    before = server.resident()
    since, good, guesses = time.monotonic(), [], []
    for number in range(SECONDS * WRONG):
        await asyncio.sleep(since + number / WRONG - time.monotonic())
        guesses.append(asyncio.create_task(guess(address, number)))
        if number % (WRONG // GOOD) == 0:
            good.append(asyncio.create_task(log_in(address, number)))
    times = sorted(seconds for seconds in await asyncio.gather(*good) if seconds is not None)
    answered = Counter(await asyncio.gather(*guesses))
    grown = (server.resident() - before) / 2**20
    lost = len(good) - len(times)
    return [times[len(times) // 2] * 1000, times[-1] * 1000, lost, grown], answered


async def guess(address: tuple[str, int], number: int) -> str:
    client = f"10.0.{number // 250}.{number % 250 + 1}"
    answer = await ask(address, client, f"user-{number % USERS}", f"wrong-{number}")
    return ANSWERS.get(answer, "let in")


async def log_in(address: tuple[str, int], number: int) -> float | None:
    """Log in with a password that the broker remembers. Return the seconds it took, or None if it failed."""
    since = time.monotonic()
    # Always from the same address, for a web service may judge by it.
    answer = await ask(address, f"192.0.2.{number % USERS + 1}", f"user-{number % USERS}", "right")
    return time.monotonic() - since if answer == b"\x20\x02\x00\x00" else None


async def ask(address: tuple[str, int], client: str, user: str, password: str) -> bytes:
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        return b""
    packet = Connect(
        f"{user}-{client}", clean_session=True, keep_alive=60, username=user, password=password.encode()
    )
    writer.write(Header.v2((client, 50123), ("198.51.100.1", 1883)).encode() + packet.encode())
    try:
        return await reader.read(4)
    except OSError:
        return b""
    finally:
        writer.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
    else:
        main()
