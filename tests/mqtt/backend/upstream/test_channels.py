"""Clients in TLS and WebSocket through the front to a real Mosquitto, and what is written down of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
import websockets
from paho.mqtt.enums import CallbackAPIVersion

from interop.certificates import CLIENT_NAME, make
from mqtt import plugins
from mqtt.front.test_websocket import upgraded
from mqtt.peers import CLIENT, WELCOME, connect, dial, log_in, running
from proxyproto_rs.mqtt import BlockedClient
from proxyproto_rs.mqtt.config import Loaded

from .mosquitto import mosquitto
from .scripted import scripted
from .test_mosquitto import behind, only_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from interop.certificates import Certificates

    from .mosquitto import Mosquitto


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "mosquitto") as server:
        yield server


def listener(kind: str, certificates: Certificates, **options: Any) -> dict[str, Any]:
    pair = str(certificates.server)
    tls = {"tls": {"certfile": pair, "keyfile": pair}} if kind in ("ssl", "wss") else {}
    return {"listeners": {kind: {**tls, **options}}}


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("kind", ["tcp", "ssl", "ws", "wss"])
async def test_paho_by_each_kind_of_listener(
    kind: str, version: int, server: Mosquitto, certificates: Certificates
) -> None:
    async with running(
        **behind(server.address), **listener(kind, certificates, proxy_protocol="off")
    ) as broker:
        transport = "websockets" if kind in ("ws", "wss") else "tcp"
        client: Any = paho.Client(
            CallbackAPIVersion.VERSION2,
            "dev",
            protocol=version,  # type: ignore[arg-type]
            transport=transport,  # type: ignore[arg-type]
        )
        client.username_pw_set("user", plugins.PASSWORD)
        if kind in ("ssl", "wss"):
            client.tls_set_context(certificates.client_context())
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        client.on_connect = lambda *_: client.subscribe("big", 2)
        client.on_subscribe = lambda *_: client.publish("big", bytes(60_000), 2)
        client.on_message = lambda *told: loop.call_soon_threadsafe(arrived.put_nowait, told[2].payload)
        host = "localhost" if kind in ("ssl", "wss") else "127.0.0.1"
        await asyncio.to_thread(client.connect, host, broker.address(kind)[1])
        client.loop_start()
        assert await asyncio.wait_for(arrived.get(), 10) == bytes(60_000)
        record = await only_session(broker)
        assert record.connection.listener == kind
        tls = record.connection.tls
        assert (tls is not None) == (kind in ("ssl", "wss"))
        if tls is not None:
            assert (tls.ended_at, tls.version, tls.sni) == ("broker", "TLSv1.3", "localhost")
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        client._reset_sockets()  # paho leaves a pair of them to the garbage collector
        await broker.until(lambda: not broker.service.sessions.connected)
        assert broker.service.metrics.disconnects == {(kind, "disconnect"): 1}


FAILED = [
    ("ssl", connect().encode(), "tls-failed", "wrong-version: "),
    ("ssl", b"\x16\x03\x01", "tls-failed", "closed"),
    ("wss", b"GET / HTTP/1.1\r\n\r\n", "tls-failed", "wrong-version: "),
    ("ws", connect().encode(), "ws-failed", "not an upgrade request but MQTT packet type 1"),
    ("ws", b"GET /other HTTP/1.1\r\n\r\n", "ws-failed", "path '/other', MQTT is at /mqtt"),
    ("ws", b"GET /mqtt HTTP/1.1\r\n", "ws-failed", "closed before the upgrade request was whole"),
]


@pytest.mark.parametrize(("kind", "sent", "reason", "said"), FAILED)
async def test_a_failed_handshake_has_its_row(
    kind: str, sent: bytes, reason: str, said: str, server: Mosquitto, certificates: Certificates
) -> None:
    async with running(**behind(server.address), **listener(kind, certificates)) as broker:
        async with dial(broker.address(kind), sent) as client:
            client.writer.write_eof()
            await client.end()
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.listener) == (reason, CLIENT[0], kind)
        assert row.reason.startswith(said)


async def test_a_proxy_that_closes_without_a_byte_has_no_row(
    server: Mosquitto, certificates: Certificates
) -> None:
    listeners = {**listener("wss", certificates)["listeners"], "ws": {}, "tcp": {}}
    async with running(**behind(server.address), listeners=listeners) as broker:
        for name in listeners:
            async with dial(broker.address(name), source=("127.0.0.1", 4711)) as client:
                client.writer.write_eof()
                await client.end()
        async with dial(broker.address("ws")) as client:
            client.writer.write_eof()
            await client.end()
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("closed-early", CLIENT[0])


@pytest.mark.parametrize("kind", ["ssl", "wss"])
async def test_a_certificate_can_be_the_login(
    kind: str, server: Mosquitto, certificates: Certificates
) -> None:
    options = listener(kind, certificates, identity={"source": "tls", "use_as": "client_id"})
    options["listeners"][kind]["tls"] |= {
        "cafile": str(certificates.authority),
        "client_certificate": "optional",
    }

    async def answered(*, with_certificate: bool) -> bytes:
        context = certificates.client_context(with_certificate=with_certificate)
        first = connect(CLIENT_NAME).encode()
        if kind == "ssl":
            async with log_in(broker.address(kind), connect(CLIENT_NAME), ssl=context) as client:
                if with_certificate:
                    tls = (await only_session(broker)).connection.tls
                    assert (tls.client_cert_cn, tls.client_cert_verified) == (CLIENT_NAME, True)
                return client.connack
        async with upgraded(broker, kind, ssl=context) as ws:
            await ws.send(first)
            answer = await ws.recv()
            assert isinstance(answer, bytes)
            return answer

    async with running(**behind(server.address), **options) as broker:
        assert await answered(with_certificate=True) == WELCOME
        assert await answered(with_certificate=False) == b"\x20\x02\0\x05"
        (row,) = await broker.rows()
        assert row.reason_code == "cert-required"


FORWARDED = {"forwarded": {"trusted": ["127.0.0.0/8"]}}


async def test_a_forwarded_address_is_the_clients_and_is_checked(
    server: Mosquitto, certificates: Certificates
) -> None:
    options = listener(
        "ws", certificates, ws=FORWARDED, proxy_protocol="off", proxy={"deny": ["198.51.100.0/24"]}
    )
    async with running(**behind(server.address), **options) as broker:

        def by(addresses: str) -> Any:
            return upgraded(broker, header=b"", additional_headers={"X-Forwarded-For": addresses})

        async with by("6.6.6.6, 203.0.113.9") as ws:
            await ws.send(connect().encode())
            assert await ws.recv() == WELCOME
            connection = (await only_session(broker)).connection
            assert (connection.client, connection.address_source) == (("203.0.113.9", 0), "forwarded")
            assert connection.proxy[0] == "127.0.0.1"
            await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="203.0.113.9"))
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
        for refused in ("203.0.113.9", "198.51.100.1"):
            with pytest.raises(websockets.InvalidMessage):
                async with by(refused):
                    pass
        rows = {(row.reason_code, row.ip_address) for row in await broker.rows(2)}
        assert rows == {("blocked", "203.0.113.9"), ("denied", "198.51.100.1")}
        (row,) = (row for row in await broker.rows(2) if row.reason_code == "blocked")
        assert row.reason == "by IP_ADDRESS 203.0.113.9"
        assert broker.service.metrics.block_hits == {"IP_ADDRESS": 1}
        block = broker.service.blocked.covers("", None, "203.0.113.9")
        assert block is not None
        assert block.hits == 1


async def test_a_frame_that_breaks_a_rule_while_a_login_waits_has_its_row(certificates: Certificates) -> None:
    async with (
        scripted() as silent,
        running(**behind(silent.address), **listener("ws", certificates, proxy_protocol="off")) as broker,
        upgraded(broker, header=b"") as ws,
    ):
        await ws.send(connect().encode())
        await silent.accept()
        await ws.send("text")
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("malformed-connect", "MQTT needs binary messages")
        assert (row.client_id, row.username) == ("dev", "user")


async def test_new_certificates_are_for_new_clients(
    server: Mosquitto, certificates: Certificates, tmp_path: Path
) -> None:
    new = make(tmp_path)
    sections = {**behind(server.address), **listener("ssl", certificates)}
    async with running(**sections) as broker:
        address = broker.address("ssl")
        async with log_in(address, ssl=certificates.client_context()) as client:
            config = broker.service.config
            tls = config.listeners["ssl"].tls
            assert tls is not None
            pair = {"certfile": str(new.server), "keyfile": str(new.server)}
            changed = config.listeners["ssl"].model_copy(update={"tls": tls.model_copy(update=pair)})
            await broker.service.reload(
                Loaded(config.model_copy(update={"listeners": {"ssl": changed}}), {}, ())
            )
            async with log_in(address, connect("next"), ssl=new.client_context()) as following:
                assert following.connack == WELCOME
                assert await client.ask(b"\xc0\0") == b"\xd0\0"


async def test_a_server_in_tls(certificates: Certificates, tmp_path: Path) -> None:
    pair = certificates.server
    lines = (f"certfile {pair}", f"keyfile {pair}")
    async with mosquitto(tmp_path / "mosquitto", *lines) as server:
        good = {"cafile": str(certificates.authority), "server_name": "localhost"}
        for tls, answer in ((good, WELCOME), ({**good, "server_name": "other"}, b"\x20\x02\0\x03")):
            async with (
                running(**behind(server.address, tls=tls)) as broker,
                log_in(broker.address()) as client,
            ):
                assert client.connack == answer
