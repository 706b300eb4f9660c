"""A broker to test, and a client that sends exactly what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxyproto_rs import Header, open_connection
from proxyproto_rs.mqtt import BrokerConfig, BrokerService, SessionQuery, UnauthorizedQuery
from proxyproto_rs.mqtt.model.login import Connect, Will, encode_length

from . import plugins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.records import UnauthorizedClient

CLIENT = ("192.0.2.10", 50123)
OTHER = ("198.51.100.7", 40001)
WELCOME, WELCOME_BACK = b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"
WAIT = 10.0  # seconds; a test that waits so long has failed


def connack(code: int) -> bytes:
    """A CONNACK that refuses."""
    return bytes((0x20, 2, 0, code))


def connect(client_id: str = "dev", **changes: Any) -> Connect:
    """A CONNECT that is let in."""
    values: dict[str, Any] = {
        "clean_session": True,
        "keep_alive": 60,
        "username": "user",
        "password": plugins.PASSWORD.encode(),
    }
    return Connect(client_id, **{**values, **changes})


def connect_of(
    version: str, client_id: str = "dev", password: bytes = plugins.PASSWORD.encode(), keep_alive: int = 60
) -> bytes:
    """A CONNECT with a clean session of any version."""
    name, level, properties = {
        "MQTT_3_1": ("MQIsdp", 3, b""),
        "MQTT_3_1_1": ("MQTT", 4, b""),
        "MQTT_5": ("MQTT", 5, b"\0"),
    }[version]
    head = text(name) + bytes((level, 0xC2)) + struct.pack("!H", keep_alive) + properties
    return packet(0x10, head + text(client_id) + text("user") + text(password))


def will(topic: str = "wills", message: bytes = b"gone", qos: int = 0, *, retain: bool = False) -> Will:
    return Will(topic, message, qos, retain)


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(len(body)) + body


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("!H", len(raw)) + raw


def publish(
    topic: str, message: bytes = b"", qos: int = 0, packet_id: int = 1, *, retain: bool = False
) -> bytes:
    head = text(topic) + (struct.pack("!H", packet_id) if qos else b"")
    return packet(0x30 | qos << 1 | retain, head + message)


def subscribe(*filters: str, qos: int = 0, packet_id: int = 1) -> bytes:
    body = b"".join(text(name) + bytes((qos,)) for name in filters)
    return packet(0x82, struct.pack("!H", packet_id) + body)


@dataclass
class Message:
    """A PUBLISH that a client received."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int | None

    @classmethod
    def of(cls, raw: bytes) -> Message:
        first, body = raw[0], raw[1 + len(_length_bytes(raw)) :]
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        qos = first >> 1 & 3
        packet_id = int.from_bytes(rest[:2], "big") if qos else None
        return cls(topic, rest[2:] if qos else rest, qos, bool(first & 1), packet_id)


@dataclass
class Client:
    """One connection, packet by packet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connack: bytes = b""

    def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(packets))

    async def packet(self) -> bytes:
        """The next packet; b"" at the end of the connection."""
        return await asyncio.wait_for(self._packet(), WAIT)

    async def message(self) -> Message:
        """Wait for the next PUBLISH, skip other packets before it, and acknowledge it."""
        while True:
            raw = await self.packet()
            assert raw, "the connection ended"
            if raw[0] >> 4 == 3:
                message = Message.of(raw)
                if message.qos == 1:
                    self.send(packet(0x40, struct.pack("!H", message.packet_id)))
                return message

    async def ask(self, question: bytes) -> bytes:
        """Send a packet and give the next that comes."""
        self.send(question)
        return await self.packet()

    async def end(self) -> bytes:
        """Everything that still comes until the broker closes the connection."""
        received = bytearray()
        # TLS may end with an alert.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while chunk := await asyncio.wait_for(self.reader.read(65536), WAIT):
                received += chunk
        return bytes(received)

    async def _packet(self) -> bytes:
        try:
            head = await self.reader.readexactly(2)
            while head[-1] & 0x80:
                head += await self.reader.readexactly(1)
            length = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(head[1:]))
            return head + await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


@contextlib.asynccontextmanager
async def dial(
    address: Address,
    *first: bytes,
    source: Address | None = CLIENT,
    header: bytes | None = None,
    ssl: ssl.SSLContext | None = None,
    local: str | None = None,
) -> AsyncIterator[Client]:
    """Open a connection. The header names `source`, or is the bytes given. With None for both there is no header."""
    named = None
    if header is None and source is not None:
        named = Header.v2(source, ("2001:db8::1", 1883) if ":" in source[0] else ("198.51.100.1", 1883))
        header = named.encode()
    if ssl is not None:
        assert named is not None
        reader, writer = await open_connection(*address, header=named, ssl=ssl, server_hostname="localhost")
    else:
        reader, writer = await asyncio.open_connection(
            *address, local_addr=None if local is None else (local, 0)
        )
        writer.write(header or b"")
    try:
        writer.write(b"".join(first))
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def log_in(address: Address, how: Connect | None = None, **keywords: Any) -> AsyncIterator[Client]:
    """Open a connection, send a CONNECT, and read its answer."""
    async with dial(address, (how or connect()).encode(), **keywords) as client:
        client.connack = await client.packet()
        yield client


@dataclass
class Broker:
    """A running service."""

    service: BrokerService
    refused: list[UnauthorizedClient] = field(default_factory=list)
    _recorded: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        record = self.service.unauthorized.record

        def recorded(row: UnauthorizedClient) -> int:
            self._recorded.set()
            return record(row)

        self.service.unauthorized.record = recorded  # type: ignore[method-assign]

    def address(self, name: str = "tcp") -> Address:
        listener = self.service.listening[name].listener
        assert listener is not None
        host, port = listener.getsockname()[:2]
        return (host, port)

    async def rows(self, count: int = 1) -> list[UnauthorizedClient]:
        """Wait until there are so many rows of refused clients; return them."""
        query = UnauthorizedQuery(sort_order="ASC", page_size=1000)

        async def enough() -> list[UnauthorizedClient]:
            while True:
                self._recorded.clear()
                rows = (await self.service.unauthorized.find(query)).data
                if len(rows) >= count:
                    return list(rows)
                await self._recorded.wait()

        return await asyncio.wait_for(enough(), WAIT)

    async def until(self, condition: Any) -> None:
        """Wait for a condition that no event signals."""
        await until(condition)

    async def until_connected(self, count: int, seconds: float = WAIT) -> None:
        """Wait until so many clients are connected, on all nodes that share the store."""
        query = SessionQuery(connected_status_list=("CONNECTED",))

        async def same() -> bool:
            return (await self.service.sessions.find(query)).total_elements == count

        await until(same, seconds)

    def plugin(self, name: str) -> Any:
        return self.service.broker.plugins_manager.get_plugin(name)


async def until(condition: Callable[[], Any], seconds: float = WAIT) -> None:
    """Wait for a condition that no event signals. It may be a coroutine function, such as one that asks a store."""

    async def true() -> None:
        while not (await holds if inspect.isawaitable(holds := condition()) else holds):  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(true(), seconds)


@contextlib.asynccontextmanager
async def running(**sections: Any) -> AsyncIterator[Broker]:
    """A broker on loopback that believes loopback; any section of the file may be given."""
    listeners = sections.pop("listeners", {"tcp": {}})
    ports = {
        name: {"bind": "127.0.0.1:0", "proxy_protocol": "required", **options}
        for name, options in listeners.items()
    }
    config = {
        "node_id": "test",
        "store": "sqlite::memory:",
        "proxy": {"trusted": ["127.0.0.0/8"]},
        "amqtt": {"plugins": dict(plugins.ALL)},
        **sections,
        "listeners": ports,
    }
    async with BrokerService(BrokerConfig.model_validate(config)) as service:
        yield Broker(service)


def _length_bytes(raw: bytes) -> bytes:
    end = 1
    while raw[end] & 0x80:
        end += 1
    return raw[1 : end + 1]
