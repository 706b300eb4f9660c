"""MQTT over WebSocket: a library's client, raw frames, and what is refused with the real address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from websockets.asyncio.client import connect as ws_connect

from proxyproto_rs import Header

from ..peers import (
    CLIENT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    WELCOME,
    connack,
    connect,
    dial,
    packet,
    publish,
    running,
    subscribe,
    text,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

    from interop.certificates import Certificates

    from ..peers import Broker

WS: dict[str, Any] = {"listeners": {"ws": {}}}


@contextlib.asynccontextmanager
async def upgraded(
    broker: Broker, name: str = "ws", *, path: str = "/mqtt", header: bytes | None = None, **keywords: Any
) -> AsyncIterator[ClientConnection]:
    """A connection of the `websockets` library, with a PROXY header in front."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, broker.address(name))
    await loop.sock_sendall(
        sock, Header.v2(CLIENT, ("198.51.100.1", 1883)).encode() if header is None else header
    )
    scheme = "wss" if "ssl" in keywords else "ws"
    keywords.setdefault("subprotocols", ["mqtt"])
    try:
        async with ws_connect(f"{scheme}://localhost{path}", sock=sock, compression=None, **keywords) as ws:
            yield ws
    finally:
        sock.close()


async def test_connect_in_three_fragments_and_two_packets_in_one_message() -> None:
    raw = connect().encode()
    async with running(**WS) as broker, upgraded(broker) as ws:
        await ws.send([raw[:1], raw[1:9], raw[9:]])
        assert await ws.recv() == WELCOME
        await ws.send(subscribe("a") + publish("a", b"x"))
        assert [await ws.recv(), await ws.recv()] == [b"\x90\x03\x00\x01\x00", publish("a", b"x")]
        (record,) = (await broker.service.sessions.find()).data
        assert (record.connection.client, record.connection.listener) == (CLIENT, "ws")
        assert ws.subprotocol == "mqtt"


async def test_a_packet_over_two_messages_and_pings_of_the_client() -> None:
    async with running(**WS) as broker, upgraded(broker) as ws:
        await ws.send(connect().encode())
        assert await ws.recv() == WELCOME
        await ws.send(PINGREQ[:1])
        await (await ws.ping())
        await ws.send(PINGREQ[1:])
        assert await ws.recv() == PINGRESP


async def test_goodbye_is_said_on_both_sides() -> None:
    async with running(**WS) as broker:
        async with upgraded(broker) as ws:
            await ws.send(connect().encode())
            await ws.recv()
            await ws.send(DISCONNECT)
            with pytest.raises(websockets.ConnectionClosedOK):
                await ws.recv()
        async with upgraded(broker) as ws:
            await ws.send(connect().encode())
            await ws.recv()
        await broker.until(lambda: not broker.service.sessions.connected)
        assert broker.service.metrics.disconnects == {("ws", "disconnect"): 1, ("ws", "connection-lost"): 1}


BROKEN = [
    ("malformed-packet", "text", 1003),
    ("packet-too-large", packet(0x30, text("a") + bytes(70_000)), 1009),
]


@pytest.mark.parametrize(("reason", "sent", "code"), BROKEN, ids=[row[0] for row in BROKEN])
async def test_what_breaks_a_rule_of_websocket_ends_the_session(reason: str, sent: Any, code: int) -> None:
    async with running(**WS) as broker, upgraded(broker) as ws:
        await ws.send(connect(clean_session=False).encode())
        await ws.recv()
        await ws.send(sent)
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        await broker.until(lambda: not broker.service.sessions.connected)
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.disconnect_reason == reason


async def test_a_refused_login_is_answered_in_a_message() -> None:
    async with running(**WS) as broker:
        async with upgraded(broker) as ws:
            await ws.send(connect(password=b"wrong").encode())
            assert await ws.recv() == connack(5)
        (row,) = await broker.rows()
        assert (row.reason_code, row.listener, row.ip_address) == ("bad-credentials", "ws", CLIENT[0])


REQUESTS = [
    ("path", {"path": "/other"}, 404, "path '/other'"),
    ("subprotocol", {"subprotocols": ["chat"]}, 400, "sub-protocol"),
    ("no-subprotocol", {"subprotocols": None}, 400, "sub-protocol"),
    ("origin", {"origin": "http://evil.example"}, 403, "origin"),
]


@pytest.mark.parametrize(
    ("how", "status", "said"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
async def test_a_wrong_request_is_answered_and_recorded(how: dict[str, Any], status: int, said: str) -> None:
    listeners = {"ws": {"ws": {"origins": ["http://good.example"]} if "origin" in how else {}}}
    async with running(listeners=listeners) as broker:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with upgraded(broker, **how):
                pass
        assert refused.value.response.status_code == status
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("ws-failed", CLIENT[0])
        assert said in row.reason


RAW = [
    ("mqtt", connect().encode(), "MQTT packet type 1"),
    ("tls", b"\x16\x03\x01\x02\x00", "a TLS ClientHello"),
    ("not-http", b"HELO there\r\n\r\n", "not an upgrade request"),
    ("endless", b"GET /mqtt HTTP/1.1\r\n" + b"X: " + b"y" * 17_000, "more than 16384 bytes"),
]


@pytest.mark.parametrize(("sent", "said"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
async def test_what_is_no_request_is_named(sent: bytes, said: str) -> None:
    async with running(**WS) as broker:
        async with dial(broker.address("ws"), sent) as client:
            await client.end()
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("ws-failed", CLIENT[0])
        assert said in row.reason


async def test_a_request_that_does_not_come_is_a_timeout() -> None:
    async with running(mqtt={"ws_timeout": "50ms"}, **WS) as broker:
        async with dial(broker.address("ws"), b"GET /mqtt HTTP/1.1\r\n") as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("ws-failed", "timeout")


async def test_wss_with_the_upgrade_behind_tls(certificates: Certificates) -> None:
    tls = {"certfile": str(certificates.server), "keyfile": str(certificates.server)}
    async with (
        running(listeners={"wss": {"tls": tls}}) as broker,
        upgraded(broker, "wss", ssl=certificates.client_context()) as ws,
    ):
        await ws.send(connect().encode())
        assert await ws.recv() == WELCOME
        (record,) = (await broker.service.sessions.find()).data
        assert record.connection.client == CLIENT
        assert record.connection.tls is not None
        assert (record.connection.tls.ended_at, record.connection.tls.sni) == ("broker", "localhost")


FORWARDED = {"ws": {"forwarded": {"trusted": ["127.0.0.0/8", "10.0.0.0/8"]}}, "proxy_protocol": "off"}


async def test_a_trusted_forwarded_for_names_the_client() -> None:
    async with (
        running(listeners={"ws": FORWARDED}) as broker,
        upgraded(
            broker, header=b"", additional_headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.2.3"}
        ) as ws,
    ):
        await ws.send(connect().encode())
        assert await ws.recv() == WELCOME
        (record,) = (await broker.service.sessions.find()).data
        connection = record.connection
        assert (connection.client, connection.address_source) == (("203.0.113.9", 0), "forwarded")
        assert connection.proxy is not None
        assert connection.proxy[0] == "127.0.0.1"


async def test_a_garbled_forwarded_for_is_a_bad_request() -> None:
    async with running(listeners={"ws": FORWARDED}) as broker:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with upgraded(
                broker, header=b"", additional_headers={"X-Forwarded-For": "203.0.113.9, unknown"}
            ):
                pass
        assert refused.value.response.status_code == 400
        (row,) = await broker.rows()
        assert row.reason_code == "ws-failed"
        assert "'unknown'" in row.reason


async def test_a_denied_forwarded_address_gets_no_upgrade() -> None:
    listener = {**FORWARDED, "proxy": {"deny": ["203.0.113.0/24"]}}
    async with running(listeners={"ws": listener}) as broker:
        with pytest.raises(websockets.InvalidMessage):
            async with upgraded(broker, header=b"", additional_headers={"X-Forwarded-For": "203.0.113.9"}):
                pass
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("denied", "203.0.113.9")
