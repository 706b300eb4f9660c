"""Clients and servers that go, stop, say nothing or say nonsense, in every phase; and what is left of it: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import (
    CLIENT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    WELCOME,
    Broker,
    connect_of,
    dial,
    packet,
    running,
    text,
)
from mqtt.peers import publish as publish_of_3
from proxyproto_rs import Header
from proxyproto_rs.mqtt import BlockedClient

from .scripted import behind, reset, scripted
from .test_channels import listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from interop.certificates import Certificates
    from mqtt.peers import Client

    from .scripted import Peer, Scripted

VERSIONS = ("MQTT_3_1", "MQTT_3_1_1", "MQTT_5")
HEADER = Header.v2(CLIENT, ("198.51.100.1", 1883)).encode()


def welcome(version: str) -> bytes:
    return b"\x20\x03\0\0\0" if version == "MQTT_5" else WELCOME


def refusal(version: str) -> bytes:
    """What a client gets if no server is available."""
    return b"\x20\x03\0\x88\0" if version == "MQTT_5" else b"\x20\x02\0\x03"


def publish(version: str, message: bytes) -> bytes:
    return packet(0x30, text("t") + (b"\0" if version == "MQTT_5" else b"") + message)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted() as server:
        yield server


@contextlib.asynccontextmanager
async def session(
    broker: Broker, server: Scripted, version: str, client_id: str = "dev", keep_alive: int = 60
) -> AsyncIterator[tuple[Client, Peer]]:
    """A client that a server has let in, and its connection there."""
    before = broker.service.sessions.connected
    async with dial(broker.address(), connect_of(version, client_id, keep_alive=keep_alive)) as client:
        peer = await server.accept()
        peer.send(welcome(version))
        assert (await client.packet())[3] == 0
        await broker.until(lambda: broker.service.sessions.connected == before + 1)
        yield client, peer


def numbers(broker: Broker) -> Any:
    return broker.service.front.numbers()


async def nothing_is_left(broker: Broker) -> None:
    def is_so() -> bool:
        now = numbers(broker)
        return (
            now["sessions"] == 0
            and all(listener["unauthenticated"] == 0 for listener in now["listeners"].values())
            and all(server["connections"] == 0 for server in now["servers"])
            and broker.service.sessions.connected == 0
        )

    await broker.until(is_so)


async def ended(broker: Broker, reason: str) -> None:
    await broker.until(lambda: broker.service.metrics.disconnects == {("tcp", reason): 1})


async def flood(peer: Peer, version: str, *sizes: int) -> None:
    """Send messages of these sizes until the connection ends."""
    messages = [publish(version, bytes(size)) for size in sizes]
    chosen = random.Random(7)
    with contextlib.suppress(ConnectionError):
        while True:
            peer.send(chosen.choice(messages))
            await peer.writer.drain()


# clients that go

SENT = [
    ("in the header", HEADER[:20], None),
    ("behind the header", HEADER, "after 0 bytes"),
    ("in the fixed header", HEADER + connect_of("MQTT_5")[:1], "after 1 bytes"),
    ("in the CONNECT", HEADER + connect_of("MQTT_5")[:20], "after 20 bytes"),
]


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(("sent", "detail"), [row[1:] for row in SENT], ids=[row[0] for row in SENT])
async def test_a_client_that_goes_before_its_login(
    sent: bytes, detail: str | None, is_reset: bool, server: Scripted
) -> None:
    async with running(**behind(server.address)) as broker:
        stats = broker.service.stats
        async with dial(broker.address(), header=sent) as client:
            if detail is None:
                await broker.until(lambda: stats()["tcp"].pending == 1)
            else:
                await broker.until(lambda: numbers(broker)["listeners"]["tcp"]["unauthenticated"] == 1)
            if is_reset:
                reset(client.writer)
        if detail is None:
            await broker.until(lambda: stats()["tcp"]["closed-early"] == 1)
        else:
            (row,) = await broker.rows()
            assert (row.reason_code, row.ip_address) == ("closed-early", CLIENT[0])
            assert row.reason == detail or is_reset
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_goes_while_its_login_is_decided(version: str, server: Scripted) -> None:
    auth = {"auth": [{"plugin": "mqtt.backend.upstream.scripted:never"}]}
    async with running(**behind(server.address), **auth) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            await broker.until(lambda: numbers(broker)["sessions"] == 1)
            reset(client.writer)
        (row,) = await broker.rows()
        assert (row.reason_code, row.client_id, row.username) == ("closed-early", "dev", "user")
        await nothing_is_left(broker)


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a server that takes no more connections, and does not refuse them."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(address)
        yield f"127.0.0.1:{address[1]}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_goes_while_its_server_is_connected_to(version: str, full: str) -> None:
    async with running(**behind(full)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            await broker.until(lambda: numbers(broker)["servers"][0]["connections"] == 1)
            reset(client.writer)
        (row,) = await broker.rows()
        assert row.reason_code == "closed-early"
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_does_not_take_the_connection(version: str, full: str) -> None:
    async with running(**behind(full, connect_timeout="200ms")) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            assert await client.end() == refusal(version)
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("upstream-unavailable", f"{full}: no answer in 0.2 s")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_goes_before_its_connack(version: str, server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            peer = await server.accept()
            reset(client.writer)
            assert await peer.end() == b""
        (row,) = await broker.rows()
        assert row.reason_code == "closed-early"
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_is_reset_in_its_session(version: str, server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with session(broker, server, version) as (client, peer):
            client.send(publish(version, b"whole"), publish(version, b"torn")[:5])
            assert await peer.packet() == publish(version, b"whole")
            reset(client.writer)
            assert DISCONNECT not in await peer.end()
        await ended(broker, "connection-lost")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_half_closed_client_is_served_to_its_end(version: str, server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with session(broker, server, version) as (client, peer):
            client.send(publish(version, b"last"))
            client.writer.write_eof()
            assert await peer.end() == publish(version, b"last")
            rest = publish(version, bytes(60_000)) * 20
            peer.send(rest)
            peer.writer.write_eof()
            assert await client.end() == rest
        await ended(broker, "connection-lost")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_half_closed_client_does_not_stay_for_ever_with_a_server_that_does_not_close(
    version: str, server: Scripted
) -> None:
    async with running(**behind(server.address), mqtt={"send_timeout": "200ms"}) as broker:
        async with session(broker, server, version, keep_alive=0) as (client, peer):
            client.writer.write_eof()
            assert await peer.end() == b""
            assert await client.end() == b""
        await ended(broker, "connection-lost")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_does_not_read_is_a_slow_consumer(version: str, server: Scripted) -> None:
    limits = {"mqtt": {"send_timeout": "300ms", "max_send_buffer": 1000}}
    async with running(**behind(server.address), **limits) as broker:
        async with session(broker, server, version) as (client, peer):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await flood(peer, version, 60_000)
            await ended(broker, "slow-consumer")
        await nothing_is_left(broker)


async def test_a_client_that_publishes_too_fast_waits_and_loses_nothing(server: Scripted) -> None:
    messages = [publish_of_3("t", b"%d" % number) for number in range(8)]
    async with (
        running(**behind(server.address), limits={"publish": "4:1"}) as broker,
        session(broker, server, "MQTT_3_1_1") as (client, peer),
    ):
        client.send(*messages, PINGREQ)
        got = [await peer.packet() for _ in range(9)]
        assert got.index(PINGREQ) == 4, "a ping does not wait"
        got.remove(PINGREQ)
        assert got == messages
        assert numbers(broker)["listeners"]["tcp"]["publish_delays"] > 0


# the same in TLS and WebSocket

REQUEST = (
    b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def frame(payload: bytes) -> bytes:
    """A binary message of a client, masked with zeros."""
    assert len(payload) < 126
    return bytes((0x82, 0x80 | len(payload), 0, 0, 0, 0)) + payload


@pytest.mark.parametrize(
    ("kind", "sent", "reason"),
    [
        ("ssl", b"\x16\x03\x01", "tls-failed"),
        ("ws", REQUEST[:30], "ws-failed"),
        ("wss", b"\x16", "tls-failed"),
    ],
)
async def test_a_client_that_is_reset_in_a_handshake(
    kind: str, sent: bytes, reason: str, server: Scripted, certificates: Certificates
) -> None:
    async with running(**behind(server.address), **listener(kind, certificates)) as broker:
        async with dial(broker.address(kind), sent) as client:
            await broker.until(lambda: numbers(broker)["listeners"][kind]["unauthenticated"] == 1)
            reset(client.writer)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == (reason, CLIENT[0])
        await nothing_is_left(broker)


PHASES = ("before its CONNECT", "in its CONNECT", "before its CONNACK", "in its session")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["ssl", "ws", "wss"])
async def test_a_client_that_is_reset_in_a_channel(
    kind: str, phase: str, server: Scripted, certificates: Certificates
) -> None:
    login = connect_of("MQTT_5")
    context = certificates.client_context() if kind != "ws" else None
    async with running(**behind(server.address), **listener(kind, certificates)) as broker:
        async with dial(broker.address(kind), ssl=context) as client:
            wrap: Callable[[bytes], bytes] = bytes
            if kind != "ssl":
                wrap = frame
                client.send(REQUEST)
                await client.reader.readuntil(b"\r\n\r\n")
            if phase == "in its CONNECT":
                client.send(wrap(login[:20]))
            elif phase != "before its CONNECT":
                client.send(wrap(login))
                peer = await server.accept()
                if phase == "in its session":
                    peer.send(welcome("MQTT_5"))
                    await broker.until(lambda: broker.service.sessions.connected == 1)
            reset(client.writer)
            if phase in PHASES[2:]:
                assert await peer.end() == b""
                peer.writer.close()
        if phase == "in its session":
            await broker.until(lambda: broker.service.metrics.disconnects == {(kind, "connection-lost"): 1})
        else:
            (row,) = await broker.rows()
            # In TLS 1.3 the client is done before the server has seen its last bytes.
            assert row.reason_code in ("closed-early", "tls-failed" if phase == PHASES[0] else "")
        await nothing_is_left(broker)


# blocks and ends under load


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_block_under_load_comes_at_the_boundary_of_a_packet(version: str, server: Scripted) -> None:
    async with running(**behind(server.address)) as broker, contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(session(broker, server, version, f"dev-{number}"))
            for number in range(6)
        ]
        floods = [
            asyncio.ensure_future(flood(peer, version, 0, 1, 100, 3000, 40_000)) for _, peer in sessions
        ]
        begun = [await client.reader.readexactly(200_000) for client, _ in sessions]
        reading = [asyncio.ensure_future(client.end()) for client, _ in sessions]
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=CLIENT[0]))
        rest = await asyncio.gather(*reading)
        await asyncio.gather(*floods)
        for start, end in zip(begun, rest, strict=True):
            first_bytes = types_of(start + end)
            assert first_bytes[-1] == (0xE0 if version == "MQTT_5" else 0x30)
            assert set(first_bytes[:-1]) == {0x30}
            assert version != "MQTT_5" or end.endswith(b"\xe0\x01\x98")
        await broker.until(lambda: broker.service.metrics.disconnects == {("tcp", "blocked"): 6})
        await nothing_is_left(broker)


def types_of(stream: bytes) -> list[int]:
    """The first bytes of the packets of a stream, which ends behind a packet."""
    found, at = [], 0
    while at < len(stream):
        found.append(stream[at])
        length, shift = 0, 0
        while True:
            at += 1
            length |= (stream[at] & 0x7F) << shift
            shift += 7
            if stream[at] < 0x80:
                break
        at += 1 + length
    assert at == len(stream), "a packet is torn"
    return found


# authentication in several steps


def auth(code: int, data: bytes = b"") -> bytes:
    properties = b"\x15" + text("XYZ") + b"\x16" + text(data)
    return packet(0xF0, bytes((code, len(properties))) + properties)


def connect_with_method() -> bytes:
    properties = b"\x15" + text("XYZ")
    head = text("MQTT") + bytes((5, 2, 0, 60, len(properties))) + properties
    return packet(0x10, head + text("dev"))


async def test_an_authentication_goes_both_ways_and_again_in_the_session(server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_with_method()) as client:
            peer = await server.accept()
            assert peer.first == connect_with_method()
            for step in (b"one", b"two", b"three"):
                peer.send(auth(0x18, step))
                assert await client.packet() == auth(0x18, step)
                client.send(auth(0x18, step * 2))
                assert await peer.packet() == auth(0x18, step * 2)
            peer.send(welcome("MQTT_5"))
            assert (await client.packet())[3] == 0
            client.send(auth(0x19, b"again"))
            assert await peer.packet() == auth(0x19, b"again")
            peer.send(auth(0x18, b"ask"))
            assert await client.packet() == auth(0x18, b"ask")
            client.send(auth(0x18, b"answer"))
            assert await peer.packet() == auth(0x18, b"answer")
            peer.send(auth(0))
            assert await client.packet() == auth(0)
            client.send(PINGREQ)
            assert await peer.packet() == PINGREQ
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.mqtt_version == "MQTT_5"
            peer.writer.close()
            assert await client.end() == b""
        await ended(broker, "upstream-closed")
        assert await broker.rows(0) == []


async def test_an_authentication_has_its_time_for_all_of_its_steps(server: Scripted) -> None:
    async with running(**behind(server.address), mqtt={"auth_timeout": "500ms"}) as broker:
        async with dial(broker.address(), connect_with_method()) as client:
            peer = await server.accept()
            answer = b""
            peer.send(auth(0x18))
            # Each step is quick, and there is no end to them.
            while (got := await client.packet())[:1] == b"\xf0":
                client.send(got)
                if await peer.packet():
                    peer.send(auth(0x18))
                await asyncio.sleep(0)
            answer = got
            assert answer == refusal("MQTT_5")
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("auth-error", "the authentication has not ended in time")
        assert not any(broker.service.blocked.count_by_type().values())
        await nothing_is_left(broker)


async def test_a_server_that_goes_during_an_authentication(server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_with_method()) as client:
            peer = await server.accept()
            peer.send(auth(0x18))
            assert await client.packet() == auth(0x18)
            client.send(auth(0x18))
            assert await peer.packet() == auth(0x18)
            peer.reset()
            assert await client.end() == refusal("MQTT_5")
        (row,) = await broker.rows()
        assert row.reason_code == "upstream-unavailable"
        assert row.reason.startswith(f"{server.address}: ")
        await nothing_is_left(broker)


# servers that misbehave


def goes_at_once(peer: Peer, version: str) -> None:
    peer.reset()


def goes_in_its_answer(peer: Peer, version: str) -> None:
    peer.send(welcome(version)[:2])
    peer.writer.close()


def says_nothing(peer: Peer, version: str) -> None:
    pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("does", [goes_at_once, goes_in_its_answer, says_nothing])
async def test_a_server_that_does_not_answer_is_unavailable(
    does: Callable[[Peer, str], None], version: str, server: Scripted
) -> None:
    timeout = "200ms" if does is says_nothing else "10s"
    async with running(**behind(server.address, connect_timeout=timeout)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            does(await server.accept(), version)
            assert await client.end() == refusal(version)
        (row,) = await broker.rows()
        assert row.reason_code == "upstream-unavailable"
        assert row.reason.startswith(f"{server.address}: ")
        assert not any(broker.service.blocked.count_by_type().values())
        await nothing_is_left(broker)


GARBAGE = [
    ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("TLS", b"\x15\x03\x01\x00\x02\x02\x16"),
    ("another packet", PINGRESP),
    ("half a CONNACK", b"\x20\x01\0"),
    ("a length of five bytes", b"\x20\xff\xff\xff\xff\x7f"),
    ("too large", b"\x20\xff\xff\xff\x7f"),
    ("an AUTH that nobody asked for", b"\xf0\x02\x18\0"),
    ("random", random.Random(1).randbytes(64)),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("answer", [row[1] for row in GARBAGE], ids=[row[0] for row in GARBAGE])
async def test_a_server_that_answers_garbage_is_at_fault(
    answer: bytes, version: str, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(**behind(server.address)) as broker:
        async with dial(broker.address(), connect_of(version)) as client:
            peer = await server.accept()
            peer.send(answer)
            assert await client.end() == refusal(version)
        (row,) = await broker.rows()
        assert row.reason_code == "broker-error"
        assert row.reason.startswith(f"{server.address}: ")
        assert f" upstream={server.address} " in caplog.text
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_torn", [False, True], ids=["whole", "torn"])
async def test_a_server_that_is_reset_in_a_session_is_lost(
    is_torn: bool, version: str, server: Scripted
) -> None:
    async with running(**behind(server.address)) as broker:
        async with session(broker, server, version) as (client, peer):
            message = publish(version, b"message")
            sent = message + message[:5] if is_torn else message
            peer.send(sent)
            assert await client.reader.readexactly(len(sent)) == sent
            peer.reset()
            assert await client.end() == b""
        await ended(broker, "upstream-lost")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_sends_garbage_in_a_session_is_at_fault(version: str, server: Scripted) -> None:
    async with running(**behind(server.address)) as broker:
        async with session(broker, server, version) as (client, peer):
            peer.send(publish(version, b"good"), b"\x10garbage")
            assert await client.packet() == publish(version, b"good")
            assert await client.end() == b""
        await ended(broker, "broker-error")
        await nothing_is_left(broker)


@pytest.mark.parametrize("version", VERSIONS)
async def test_all_servers_are_down_and_then_one_is_back(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with scripted() as first, scripted() as second:
        addresses = first.address, second.address
    checks = {"interval": "20ms", "fall": 1, "rise": 1}
    async with running(**behind(*addresses, check=checks)) as broker:
        await broker.until(lambda: caplog.text.count("upstream-down") == 2)
        async with dial(broker.address(), connect_of(version)) as client:
            assert await client.end() == refusal(version)
        (row,) = await broker.rows()
        why = "is down (Connection refused (os error 111))"
        assert row.reason == "; ".join(f"{address} {why}" for address in addresses)
        host, port = addresses[1].split(":")
        async with scripted(host, int(port)) as second:
            await broker.until(lambda: "upstream-up" in caplog.text)
            async with session(broker, second, version):
                record = broker.service.sessions.record("dev")
                assert record is not None
                assert record.upstream == addresses[1]
        assert not any(broker.service.blocked.count_by_type().values())
