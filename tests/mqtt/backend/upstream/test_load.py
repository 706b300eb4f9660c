"""What is acknowledged is kept: while the list of servers changes, and while one process hands over to the next."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
from typing import TYPE_CHECKING

from mqtt.peers import (
    DISCONNECT,
    WAIT,
    Client,
    connect,
    log_in,
    packet,
    publish,
    running,
    subscribe,
)
from mqtt.test_cli_broker import running as running_process
from peers import free_port
from proxyproto_rs.mqtt.config.broker import BrokerConfig, Loaded

from .mosquitto import mosquitto
from .test_mosquitto import behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxyproto_rs.mqtt.model.connection import Address

    from .mosquitto import Mosquitto

CLIENTS = 12
AT_ONCE = 8  # messages of a client that are on their way at the same time


class Publisher:
    """Publishes at QoS 1 until it is told to stop, and comes again when its connection ends."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.acknowledged: set[bytes] = set()
        self.ends = 0
        """How often its connection has ended."""
        self._address = address
        self._number = 0
        self._on_their_way: dict[int, bytes] = {}
        self._is_stopping = False

    async def run(self) -> None:
        while not self._is_stopping or self._on_their_way:
            with contextlib.suppress(ConnectionError):
                async with log_in(self._address, connect(self.name)) as client:
                    if client.connack[:1] == b"\x20" and client.connack[3] == 0:
                        await self._publish(client)
                        continue
            self.ends += 1

    def stop(self) -> None:
        self._is_stopping = True

    async def _publish(self, client: Client) -> None:
        for packet_id, message in self._on_their_way.items():
            client.send(publish("load", message, 1, packet_id))
        while True:
            while len(self._on_their_way) < AT_ONCE and not self._is_stopping:
                self._number += 1
                packet_id = self._number % 65535 + 1
                message = self._on_their_way[packet_id] = f"{self.name} {self._number}".encode()
                client.send(publish("load", message, 1, packet_id))
            if not self._on_their_way:
                client.send(DISCONNECT)
                await client.end()
                return
            answer = await client.packet()
            if not answer:
                self.ends += 1
                return
            assert answer[:2] == b"\x40\x02"
            self.acknowledged.add(self._on_their_way.pop(struct.unpack("!H", answer[2:])[0]))


@contextlib.asynccontextmanager
async def stored_by(server: Mosquitto) -> AsyncIterator[set[bytes]]:
    """What the server keeps for a subscriber that is away meanwhile, and that asks it directly. It is filled at the end."""
    address = ("127.0.0.1", server.port)
    how = connect("keeper", clean_session=False)
    async with log_in(address, how, source=None) as keeper:
        await keeper.ask(subscribe("load", qos=1))
        keeper.send(DISCONNECT)
        await keeper.end()
    stored: set[bytes] = set()
    yield stored
    async with log_in(address, connect("last"), source=None) as last:
        assert (await last.ask(publish("load", b"last", 1)))[0] == 0x40
    async with log_in(address, how, source=None) as keeper:
        assert keeper.connack[2:] == b"\x01\0"
        while (message := await keeper.message()).payload != b"last":
            stored.add(message.payload)


async def more(publishers: list[Publisher], count: int) -> None:
    """Wait until each of them has had so many more acknowledgements."""
    wanted = [(publisher, len(publisher.acknowledged) + count) for publisher in publishers]

    async def had() -> None:
        while any(len(publisher.acknowledged) < count for publisher, count in wanted):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await asyncio.wait_for(had(), 6 * WAIT)


KEEPS_ALL = ("max_queued_messages 0",)


async def test_a_process_that_ends_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(mosquitto(tmp_path / "mosquitto", *KEEPS_ALL))
        stored = await stack.enter_async_context(stored_by(server))
        port = stack.enter_context(free_port())
        (tmp_path / "broker.yaml").write_text(
            f"""\
listeners:
  tcp: {{bind: "127.0.0.1:{port}", proxy_protocol: required, proxy: {{trusted: [127.0.0.1], reuse_port: true}}}}
store: "sqlite::memory:"
backend: {{upstream: {{servers: ["{server.address}"], proxy_protocol: off}}}}
"""
        )
        publishers = [Publisher(f"dev-{number}", ("127.0.0.1", port)) for number in range(CLIENTS)]
        with running_process(tmp_path) as old:
            tasks = [asyncio.ensure_future(publisher.run()) for publisher in publishers]
            await more(publishers, 20)
            with running_process(tmp_path) as new:
                old.signal(signal.SIGTERM)
                assert await asyncio.to_thread(old.wait) == 0
                assert all(publisher.ends for publisher in publishers)
                await more(publishers, 20)
                for publisher in publishers:
                    publisher.stop()
                await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
                new.signal(signal.SIGTERM)
                assert await asyncio.to_thread(new.wait) == 0
    acknowledged = set().union(*(publisher.acknowledged for publisher in publishers))
    assert len(acknowledged) >= CLIENTS * 40
    assert stored == acknowledged


async def test_a_list_of_servers_that_changes_under_load_loses_nothing(tmp_path: Path) -> None:
    async with (
        mosquitto(tmp_path / "first", *KEEPS_ALL) as first,
        mosquitto(tmp_path / "second", *KEEPS_ALL) as second,
        stored_by(first) as stored,
        stored_by(second) as stored_too,
        running(**behind(first.address)) as broker,
    ):
        visits: set[bytes] = set()
        is_over = False

        async def visit(name: str) -> None:
            """Log in again and again, each time for one message."""
            number = 0
            while not is_over:
                message = f"{name} {number}".encode()
                async with log_in(broker.address(), connect(name)) as client:
                    assert client.connack == b"\x20\x02\0\0"
                    assert await client.ask(publish("load", message, 1)) == packet(0x40, b"\0\x01")
                    visits.add(message)
                    client.send(DISCONNECT)
                    await client.end()
                number += 1

        publishers = [Publisher(f"dev-{number}", broker.address()) for number in range(CLIENTS)]
        tasks = [asyncio.ensure_future(publisher.run()) for publisher in publishers]
        visitors = [asyncio.ensure_future(visit(f"visitor-{number}")) for number in range(4)]
        await more(publishers, 5)
        for servers in ([second], [first, second], [first], [second, first]) * 5:
            tree = broker.service.config.model_dump()
            tree["backend"]["upstream"]["servers"] = [server.address for server in servers]
            for listener in tree["listeners"].values():
                del listener["name"]
            await broker.service.reload(Loaded(BrokerConfig.model_validate(tree), {}, ()))
            seen = len(visits)
            await broker.until(lambda seen=seen: len(visits) >= seen + 4)
            await more(publishers, 2)
        is_over = True
        await asyncio.wait_for(asyncio.gather(*visitors), WAIT)
        assert sum(publisher.ends for publisher in publishers) == 0
        for publisher in publishers:
            publisher.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
        await broker.until(lambda: broker.service.sessions.connected == 0)
        assert set(broker.service.metrics.disconnects) == {("tcp", "disconnect")}
        assert set(broker.service.metrics.connects) == {("tcp", "accepted")}
    acknowledged = visits.union(*(publisher.acknowledged for publisher in publishers))
    assert stored | stored_too == acknowledged
    assert stored & visits
    assert stored_too & visits
