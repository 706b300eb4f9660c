"""End to end: MQTT clients of other projects, each from its own address, through HAProxy or nginx, to the broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from interop.certificates import CLIENT_NAME
from interop.pages import text
from interop.proxies import find_program, running_haproxy, running_nginx
from proxyproto_rs import Header
from proxyproto_rs.mqtt import BlockedClient

from . import plugins
from .peers import CLIENT, OTHER, WAIT, WELCOME, connect, dial, log_in, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from interop.certificates import Certificates
    from proxyproto_rs.mqtt.model.connection import Address

    from .peers import Broker


@contextlib.contextmanager
def haproxy(tmp_path: Path, *servers: tuple[Address, str], bind: str = "") -> Iterator[list[int]]:
    """Run HAProxy with a port for each server line; return the ports."""
    with contextlib.ExitStack() as stack:
        fronts = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in servers]
        lines = []
        for front, ((host, port), options) in zip(fronts, servers, strict=True):
            lines += [
                f"listen mqtt-{front.fileno()}",
                "    mode tcp",
                f"    bind fd@{front.fileno()} {bind}",
                f"    server broker {host}:{port} {options}",
            ]
        stack.enter_context(running_haproxy("\n".join(lines) + "\n", tmp_path, *fronts))
        yield [front.getsockname()[1] for front in fronts]


class Device:
    """A paho client in its own thread, bound to its own loopback address."""

    def __init__(self, client_id: str, address: str, **options: Any) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, **options)
        self.client.username_pw_set("user", plugins.PASSWORD)
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[str] = self._loop.create_future()
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message

    async def connect(self, port: int) -> str:
        """What the broker said, in paho's words."""
        await asyncio.to_thread(self.client.connect, "127.0.0.1", port, 60, self._address)
        self.client.loop_start()
        return await asyncio.wait_for(self._connected, WAIT)

    @property
    def own_address(self) -> Address:
        sock: Any = self.client.socket()
        while not hasattr(sock, "getsockname"):
            sock = sock._socket
        host, port = sock.getsockname()
        return (host, port)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets()  # paho leaves a pair of them to the garbage collector

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._loop.call_soon_threadsafe(self._say, str(reason))

    def _say(self, what: str) -> None:
        if not self._connected.done():
            self._connected.set_result(what)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self._loop.call_soon_threadsafe(self.messages.put_nowait, (message.topic, message.payload))


@contextlib.asynccontextmanager
async def device(client_id: str, address: str, port: int, **options: Any) -> AsyncIterator[Device]:
    tls = options.pop("tls", None)
    paho_device = Device(client_id, address, **options)
    if tls is not None:
        paho_device.client.tls_set_context(tls)
        paho_device.client.tls_insecure_set(True)
    try:
        assert await paho_device.connect(port) == "Success"
        yield paho_device
    finally:
        await asyncio.to_thread(paho_device.close)


def address_of(broker: Broker, client_id: str) -> Address:
    record = broker.service.sessions.record(client_id)
    assert record is not None
    return record.connection.client


async def test_v1_and_v2_are_told_apart_on_one_listener(tmp_path: Path) -> None:
    async with running() as broker:
        address = broker.address()
        with haproxy(tmp_path, (address, "send-proxy"), (address, "send-proxy-v2")) as (v1, v2):
            async with device("one", "127.0.0.5", v1) as one, device("two", "127.0.0.6", v2) as two:
                for client_id, client, version in (("one", one, 1), ("two", two, 2)):
                    assert address_of(broker, client_id) == client.own_address
                    record = broker.service.sessions.record(client_id)
                    assert record is not None
                    assert record.connection.proxy_version == version
                subscribed = asyncio.Event()
                loop = asyncio.get_running_loop()
                one.client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)  # type: ignore[assignment]
                one.client.subscribe("a", 1)
                await asyncio.wait_for(subscribed.wait(), WAIT)
                two.client.publish("a", bytes(50_000), 1)
                assert await asyncio.wait_for(one.messages.get(), WAIT) == ("a", bytes(50_000))


KINDS = ["tcp", "ssl", "ws", "wss"]


@pytest.mark.parametrize("kind", KINDS)
async def test_address_and_port_are_the_clients_own(
    kind: str, tmp_path: Path, certificates: Certificates
) -> None:
    server = str(certificates.server)
    tls = {"tls": {"certfile": server, "keyfile": server}} if kind in ("ssl", "wss") else {}
    options: dict[str, Any] = {"transport": "websockets" if kind in ("ws", "wss") else "tcp"}
    if tls:
        options["tls"] = certificates.client_context()
    async with running(listeners={kind: tls}) as broker:
        with haproxy(tmp_path, (broker.address(kind), "send-proxy-v2")) as (port,):
            async with device("dev", "127.0.0.7", port, **options) as client:
                assert address_of(broker, "dev") == client.own_address


async def test_mosquitto_and_aiomqtt_talk_to_each_other(tmp_path: Path) -> None:
    login = ["-u", "user", "-P", plugins.PASSWORD]
    pub = find_program("mosquitto_pub")
    async with running() as broker:
        with haproxy(tmp_path, (broker.address(), "send-proxy-v2")) as (port,):
            async with aiomqtt.Client(
                "127.0.0.1",
                port,
                username="user",
                password=plugins.PASSWORD,
                identifier="aio",
                bind_address="127.0.0.8",
            ) as client:
                assert address_of(broker, "aio")[0] == "127.0.0.8"
                await client.subscribe("greeting", 1)
                command = [
                    pub,
                    "-p",
                    str(port),
                    "-A",
                    "127.0.0.9",
                    "-i",
                    "mosq",
                    *login,
                    "-q",
                    "1",
                    "-t",
                    "greeting",
                    "-m",
                    "hi",
                ]
                process = await asyncio.create_subprocess_exec(*command)
                assert await asyncio.wait_for(process.wait(), WAIT) == 0
                message = await asyncio.wait_for(anext(aiter(client.messages)), WAIT)
                assert (str(message.topic), message.payload) == ("greeting", b"hi")
            client._client._reset_sockets()
            await broker.until(lambda: broker.service.metrics.disconnects["tcp", "disconnect"] >= 1)
        (first, second, *_) = await broker.service.top("connects")
        assert {first.address, second.address} == {"127.0.0.8", "127.0.0.9"}


async def test_a_wrong_password_through_the_proxy_is_recorded_with_the_real_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sub = find_program("mosquitto_sub")
    async with running() as broker:
        with haproxy(tmp_path, (broker.address(), "send-proxy-v2")) as (port,):
            command = [
                sub,
                "-p",
                str(port),
                "-A",
                "127.0.0.9",
                "-i",
                "guess",
                "-u",
                "u",
                "-P",
                "wrong",
                "-t",
                "x",
            ]
            process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
            assert await asyncio.wait_for(process.wait(), WAIT) != 0
        (row,) = await broker.rows()
        assert (row.client_id, row.ip_address, row.reason_code) == ("guess", "127.0.0.9", "bad-credentials")
        assert row.proxy_address == "127.0.0.1"
    line = next(
        record.getMessage() for record in caplog.records if record.getMessage().startswith("refused ")
    )
    assert line.startswith("refused client=127.0.0.9:")


async def test_tls_at_haproxy_with_the_certificate_as_login(
    tmp_path: Path, certificates: Certificates
) -> None:
    bind = f"ssl crt {certificates.server} ca-file {certificates.authority} verify optional"
    identity = {"listeners": {"tcp": {"identity": {"source": "header"}}}}
    async with running(**identity) as broker:
        with haproxy(tmp_path, (broker.address(), "send-proxy-v2-ssl-cn"), bind=bind) as (port,):
            with_certificate = certificates.client_context(with_certificate=True)
            async with device("dev", "127.0.0.7", port, tls=with_certificate) as client:
                assert address_of(broker, "dev") == client.own_address
                record = broker.service.sessions.record("dev")
                assert record is not None
                assert record.username == CLIENT_NAME
                assert record.connection.tls is not None
                assert record.connection.tls.ended_at == "proxy"
            without = Device("dev", "127.0.0.7")
            without.client.tls_set_context(certificates.client_context())
            without.client.tls_insecure_set(True)
            try:
                assert await without.connect(port) == "Not authorized"
            finally:
                await asyncio.to_thread(without.close)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.tls_used) == ("cert-required", "127.0.0.7", True)


CHECKS = ["send-proxy-v2 check", "send-proxy check"]


@pytest.mark.parametrize("options", CHECKS)
@pytest.mark.parametrize("kind", ["tcp", "ssl", "ws"])
async def test_health_checks_leave_no_row_and_no_line(
    options: str, kind: str, tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = str(certificates.server)
    tls = {"tls": {"certfile": server, "keyfile": server}} if kind == "ssl" else {}
    async with running(listeners={kind: tls}) as broker:
        caplog.clear()
        with haproxy(tmp_path, (broker.address(kind), options)):
            # Some of them reach the broker. Others have ended before they are looked at.
            await broker.until(lambda: broker.service.stats()[kind].accepted >= 4)
        assert await broker.rows(0) == []
        ours = [record for record in caplog.records if record.levelno > logging.DEBUG]
        assert [record.getMessage() for record in ours if record.name.startswith("proxyproto_rs")] == []


async def test_a_header_split_anywhere_is_read_whole_and_nothing_more() -> None:
    header = Header.v2(CLIENT, ("198.51.100.1", 1883)).encode()
    async with running() as broker:
        for split in range(1, len(header)):
            async with dial(broker.address(), header=header[:split]) as client:
                await client.writer.drain()
                client.send(header[split:] + connect().encode())
                assert await client.packet() == WELCOME
                record = broker.service.sessions.record("dev")
                assert record is not None
                assert record.connection.client == CLIENT
                assert record.connection.destination == ("198.51.100.1", 1883)


async def test_the_line_that_everybody_shows() -> None:
    header = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n"
    async with running() as broker, log_in(broker.address(), header=header) as client:
        assert client.connack == WELCOME
        assert address_of(broker, "dev") == ("192.0.2.1", 12345)


async def test_a_blocked_network_gets_no_byte_of_tls(certificates: Certificates) -> None:
    server = str(certificates.server)
    async with running(listeners={"ssl": {"tls": {"certfile": server, "keyfile": server}}}) as broker:
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="192.0.2.0/24"))
        async with dial(broker.address("ssl"), b"\x16\x03\x01\x00\x05hello") as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.listener) == ("blocked", CLIENT[0], "ssl")


async def test_one_clients_rate_is_not_its_neighbours() -> None:
    limits = {"trusted": ["127.0.0.0/8"], "max_rate_per_client": 1, "burst_per_client": 1}
    async with running(proxy=limits) as broker:
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME
        async with dial(broker.address(), connect().encode()) as client:
            assert await client.end() == b""
        async with log_in(broker.address(), source=OTHER) as client:
            assert client.connack == WELCOME
        assert broker.service.stats()["tcp"]["rate-limited"] == 1


async def test_a_header_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as broker:
        async with dial(broker.address(), connect().encode(), source=None) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.address_source) == (
            "missing-header",
            "127.0.0.1",
            "peer",
        )
    line = next(record.getMessage() for record in caplog.records if record.name == "proxyproto_rs.listener")
    assert "is an MQTT CONNECT" in line
    assert "send-proxy-v2" in line


async def test_a_header_nobody_expects(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with running(listeners={"tcp": {"proxy_protocol": "off"}}) as broker:
        with haproxy(tmp_path, (broker.address(), "send-proxy-v2")) as (port,):
            async with dial(("127.0.0.1", port), connect().encode(), source=None) as client:
                assert await client.end() == b""
        (row,) = await broker.rows()
        assert row.reason_code == "unexpected-header"
    assert "proxy_protocol" in caplog.text  # the line of whichever saw the bytes: acceptor or gate


async def test_a_spoofed_header_bans_nobody() -> None:
    trusting = {"trusted": ["127.0.0.2"]}
    async with running(proxy=trusting, auto_block={"enabled": True, "max_failures": 1}) as broker:
        async with dial(broker.address(), connect().encode()) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("untrusted", "127.0.0.1")
        assert not broker.service.sessions.connected
        assert not sum(broker.service.blocked.count_by_type().values())


async def test_a_late_header_is_in_time_or_not() -> None:
    header = Header.v2(CLIENT, OTHER).encode()
    listeners = {"tcp": {"proxy": {"header_timeout": "200ms"}}, "patient": {"type": "tcp"}}
    async with running(listeners=listeners) as broker:
        async with dial(broker.address("patient"), header=header[:5]) as late:
            async with dial(broker.address(), header=header[:5]) as client:
                assert await client.end() == b""
            # By now the other listener's timeout has passed.
            late.send(header[5:] + connect().encode())
            assert await late.packet() == WELCOME
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == ("timeout", "127.0.0.1")


async def test_nginx_stream_sends_v1(tmp_path: Path) -> None:
    async with running() as broker:
        host, port = broker.address()
        with socket.create_server(("127.0.0.1", 0)) as front:
            listen = front.getsockname()[1]
            configuration = f"""
                stream {{ server {{
                    listen 127.0.0.1:{listen}; proxy_pass {host}:{port}; proxy_protocol on; proxy_timeout 10m;
                }} }}
            """
            with running_nginx(configuration, tmp_path, front):
                async with device("dev", "127.0.0.7", listen) as client:
                    assert address_of(broker, "dev") == client.own_address
                    record = broker.service.sessions.record("dev")
                    assert record is not None
                    assert record.connection.proxy_version == 1


async def test_nginx_http_forwards_websockets(tmp_path: Path) -> None:
    forwarded = {"ws": {"forwarded": {"trusted": ["127.0.0.0/8"]}}, "proxy_protocol": "off"}
    async with running(listeners={"ws": forwarded}) as broker:
        host, port = broker.address("ws")
        with socket.create_server(("127.0.0.1", 0)) as front:
            listen = front.getsockname()[1]
            configuration = f"""
                http {{ access_log off; server {{
                    listen 127.0.0.1:{listen};
                    location /mqtt {{
                        proxy_pass http://{host}:{port};
                        proxy_http_version 1.1;
                        proxy_set_header Upgrade $http_upgrade;
                        proxy_set_header Connection upgrade;
                        proxy_set_header X-Forwarded-For "6.6.6.6, 203.0.113.77";
                    }}
                }} }}
            """
            with running_nginx(configuration, tmp_path, front):
                async with device("dev", "127.0.0.7", listen, transport="websockets"):
                    assert address_of(broker, "dev") == ("203.0.113.77", 0)


async def test_each_reason_is_recorded_once(certificates: Certificates) -> None:
    """One row for each code that a client can provoke, each with the right address."""
    server = str(certificates.server)
    listeners: dict[str, Any] = {
        "tcp": {},
        "ssl": {"tls": {"certfile": server, "keyfile": server}},
        "ws": {},
        "named": {"type": "tcp", "identity": {"source": "header"}},
        "tls": {"type": "tcp", "proxy": {"require_tls": True}},
        "two": {"type": "tcp", "proxy": {"versions": [2]}},
        "plain": {"type": "tcp", "proxy_protocol": "off"},
        "strict": {"type": "tcp", "proxy": {"trusted": ["127.0.0.2"]}},
        "denied": {"type": "tcp", "proxy": {"deny": ["192.0.2.0/24"]}},
    }
    good, v2 = connect().encode(), Header.v2(CLIENT, ("198.51.100.1", 1883)).encode()
    checksum = Header.v2(CLIENT, ("198.51.100.1", 1883), checksum=True).encode()
    large = v2[:14] + b"\xff\xff" + v2[16:]
    # Code, listener, header (v2: of an address of its own), what follows it.
    provocations: list[tuple[str, str, bytes, bytes]] = [
        ("bad-credentials", "tcp", v2, connect(password=b"x").encode()),
        ("auth-error", "tcp", v2, connect(username="boom").encode()),
        ("access-denied", "tcp", v2, connect(username="barred").encode()),
        ("blocked", "tcp", v2, connect("barred").encode()),
        ("cert-required", "named", v2, good),
        ("protocol-version", "tcp", v2, good.replace(b"MQTT\x04", b"MQTT\x05")),
        ("identifier-rejected", "tcp", v2, connect("", clean_session=False).encode()),
        ("malformed-connect", "tcp", v2, b"GET / HTTP/1.1\r\n\r\n"),
        ("no-connect", "tcp", v2, b""),
        ("closed-early", "tcp", v2, good[:5]),
        ("tls-failed", "ssl", v2, good),
        ("ws-failed", "ws", v2, good),
        ("untrusted", "strict", v2, good),
        ("missing-header", "tcp", b"", good),
        ("malformed", "tcp", b"PROXY TCP4 x\r\n", b""),
        ("oversized", "tcp", large, b""),
        ("bad-checksum", "tcp", checksum[:-1] + bytes((checksum[-1] ^ 1,)), b""),
        ("timeout", "tcp", v2[:5], b""),
        ("unexpected-header", "plain", v2, good),
        ("version-not-allowed", "two", b"PROXY TCP4 192.0.2.10 198.51.100.1 50123 1883\r\n", good),
        ("tls-required", "tls", v2, good),
        ("denied", "denied", v2, good),
    ]
    sections: dict[str, Any] = {
        "listeners": listeners,
        "proxy": {"trusted": ["127.0.0.0/8"], "header_timeout": "300ms"},
        "mqtt": {"connect_timeout": "300ms"},
        "access": [{"users": ["barred"], "action": "deny"}],
    }
    async with running(**sections) as broker:
        await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="barred"))
        expected = {}
        for number, (code, name, header, sent) in enumerate(provocations, 1):
            # There is a row for each client id and address. Each connection has an address of its own:
            # the header's, or else the peer's.
            address, local = f"192.0.2.{number}", f"127.0.1.{number}"
            named = header is v2 and code not in ("untrusted", "unexpected-header")
            own = Header.v2((address, 50123), ("198.51.100.1", 1883)).encode() if header is v2 else header
            async with dial(broker.address(name), sent, header=own, source=None, local=local) as client:
                if code == "closed-early":
                    client.writer.write_eof()
                await client.end()
            expected[code] = address if named else local
        rows = await broker.rows(len(expected))
        assert {row.reason_code: row.ip_address for row in rows} == expected
        assert {row.attempts for row in rows} == {1}


def test_demo() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxyproto_rs.cli", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = without_ports(done.stdout)
    for name in ("without", "with"):
        # The first page of the documentation shows these tables.
        assert without_ports(text("README.md", name)) in shown


def without_ports(tables: str) -> str:
    """The tables with the ports of this machine, which differ each time, replaced."""
    return re.sub(r"127\.0\.0\.1:\d{5}", "127.0.0.1:PORT5", tables)


def test_demo_with_mosquitto_behind() -> None:
    find_program("mosquitto")
    done = subprocess.run(
        [sys.executable, "-m", "proxyproto_rs.cli", "demo", "--upstream", "mosquitto"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["display-1", "198.51.100.7:40001", "127.0.0.1", "v1", "5"] in lines
    assert ["sensor-7", "192.0.2.10:50123", "127.0.0.1", "v2", "3.1.1"] in lines


def test_demo_through_haproxy() -> None:
    find_program("haproxy")
    done = subprocess.run(
        [sys.executable, "-m", "proxyproto_rs.cli", "demo", "--haproxy"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
