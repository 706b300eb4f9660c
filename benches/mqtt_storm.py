"""What a storm of wrong passwords does to logins that PasswordFile remembers: 200 a second from 2,400 addresses, for 12 s.

    python benches/mqtt_storm.py [ROUNDS]

The broker has core 0, the clients core 1. Passwords are hashed with argon2 as argon2-cffi does it by default. Each address
guesses once. Between, five remembered logins a second are timed from their connection to their CONNACK.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from argon2 import PasswordHasher
from processes import HERE, Server
from rounds import Spread, table

from proxyproto_rs import Header
from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.model.login import Connect
from proxyproto_rs.mqtt.telling.logs import configure

ROUNDS = 3
SECONDS, WRONG, GOOD = 12, 200, 5  # the last two are logins a second
USERS = 5
ANSWERS = {b"\x20\x02\x00\x05": "wrong", b"\x20\x02\x00\x03": "too late", b"": "closed"}


async def serve(users: str) -> None:
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "required"}},
            "proxy": {"trusted": ["127.0.0.1"]},
            "store": "sqlite::memory:",
            "log": {"level": "ERROR"},
            "amqtt": {"plugins": {"proxyproto_rs.mqtt.PasswordFile": {"password_file": users}}},
        }
    )
    configure(config.log)
    async with BrokerService(config) as service:
        listener = service.listening["tcp"].listener
        assert listener is not None
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    os.sched_setaffinity(0, {1})
    results, answers = [], Counter[str]()
    for _ in range(rounds):
        result, answered = storm()
        results.append(result)
        answers += answered
    measures = (
        "remembered login, median ms",
        "remembered login, longest ms",
        "lost of 60",
        "MiB of memory grown by",
    )
    table(
        ["", "in each round"],
        [[name, Spread(column)] for name, column in zip(measures, zip(*results, strict=True), strict=True)],
    )
    print(
        f"Guesses were answered: {', '.join(f'{count} {what}' for what, count in sorted(answers.items()))}."
    )


def storm() -> tuple[list[float], Counter[str]]:
    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory) / "users.txt"
        users.write_text("".join(f"user-{n}:{PasswordHasher().hash('right')}\n" for n in range(USERS)))
        with Server([sys.executable, str(HERE / "mqtt_storm.py"), "serve", str(users)], {0}) as server:
            host, _, port = server.address.rpartition(":")
            return asyncio.run(attack((host, int(port)), server))


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
    answer = await ask(address, f"192.0.2.{number % 250 + 1}", f"user-{number % USERS}", "right")
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
        asyncio.run(serve(sys.argv[2]))
    else:
        main()
