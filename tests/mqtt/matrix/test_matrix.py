"""Every kind of listener, every version of MQTT, every broker, directly and through HAProxy: what clients do every day.

Paho goes through all cells, aiomqtt and Mosquitto's own tools through some of each broker, kind and proxy. Each broker, its
front and HAProxy are started once. Tests share them, and keep apart by their ids and topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest
from anyio.from_thread import start_blocking_portal

from interop.certificates import CLIENT_NAME
from interop.proxies import find_program
from mqtt import plugins
from mqtt.backend.upstream.mosquitto import mosquitto
from mqtt.peers import WAIT, running

from .device import HOST, OWN_ADDRESS, PROTOCOLS, Device, Message
from .routes import DIRECT, ROUTES, listeners, routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from anyio.from_thread import BlockingPortal

    from interop.certificates import Certificates
    from mqtt.backend.upstream.rabbitmq import Cluster
    from mqtt.peers import Broker
    from proxyproto_rs.mqtt.model.login import Login
    from proxyproto_rs.mqtt.model.session_record import SessionRecord

    from .routes import Route

pytestmark = pytest.mark.timeout(300)  # the first test with RabbitMQ starts it

VERSIONS = {
    "embedded": ("3.1", "3.1.1", "5"),
    "mosquitto": ("3.1", "3.1.1", "5"),
    "rabbitmq": ("3.1", "3.1.1"),
    "amqtt": ("3.1.1",),
}
"""What each broker speaks."""
BEST_QOS = {"embedded": 2, "mosquitto": 2, "rabbitmq": 1, "amqtt": 2}
"""RabbitMQ 3.10 takes QoS 2 for 1."""
KEPT_QOS = {"embedded": (1, 2), "mosquitto": (1, 2), "rabbitmq": (1, 2), "amqtt": (1,)}
"""What outlives a reconnect. amqtt 0.12 sometimes sends a kept message of QoS 2 twice, and stumbles over that."""
LARGE = bytes(range(256)) * 4096  # 1 MiB
_SIZES = {"max_packet_size": "2MiB", "max_send_buffer": "4MiB"}
_WORDS = {"3.1": "MQTT_3_1", "3.1.1": "MQTT_3_1_1", "5": "MQTT_5"}
_numbers = itertools.count()


@dataclass
class Front:
    """A broker that runs in a thread of its own, and the ways to it."""

    name: str
    broker: Broker
    portal: BlockingPortal
    routes: dict[tuple[str, str], Route]

    def session(self, client_id: str) -> SessionRecord:
        """Wait for a session's row."""

        async def found() -> SessionRecord:
            await self.broker.until(lambda: self.broker.service.sessions.record(client_id) is not None)
            record = self.broker.service.sessions.record(client_id)
            assert record is not None
            return record

        return self.portal.call(found)

    def wait_disconnected(self, client_id: str) -> None:
        """Wait until a kept session has no connection."""
        record = self.session(client_id)
        self.portal.call(self.broker.until, lambda: not record.connected)


class Fronts:
    """Starts what stands in front of a broker when the first test asks for it."""

    def __init__(
        self, stack: contextlib.ExitStack, portal: BlockingPortal, certificates: Certificates, directory: Path
    ) -> None:
        self._stack = stack
        self._portal = portal
        self._certificates = certificates
        self._directory = directory
        self._running: dict[str, Front] = {}

    def front(self, name: str, cluster: Callable[[], Cluster]) -> Front:
        if name not in self._running:
            self._running[name] = self._start(name, cluster)
        return self._running[name]

    def _start(self, name: str, cluster: Callable[[], Cluster]) -> Front:
        directory = self._directory / name
        directory.mkdir()
        sections: dict[str, Any] = {"listeners": listeners(self._certificates), "mqtt": _SIZES}
        if name == "mosquitto":
            server = self._enter(mosquitto(directory / "server"))
            sections |= _behind(server.address, proxy_protocol="off")
        elif name == "rabbitmq":
            sections |= _behind(cluster().nodes[0].address, versions=VERSIONS["rabbitmq"])
        elif name == "embedded":
            sections |= {"backend": "embedded", "auth": [{"plugin": f"{__name__}:knows"}], "amqtt": {}}
        broker = self._enter(running(**sections))
        ways = self._stack.enter_context(routes(broker, self._certificates, directory))
        return Front(name, broker, self._portal, ways)

    def _enter(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        return self._stack.enter_context(self._portal.wrap_async_context_manager(manager))


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Fronts]:
    with start_blocking_portal("asyncio") as portal, contextlib.ExitStack() as stack:
        yield Fronts(stack, portal, certificates, tmp_path_factory.mktemp("matrix"))


def knows(login: Login) -> bool:
    """Check the password, as a plugin of `auth`."""
    return login.connect.password == plugins.PASSWORD.encode()


def _behind(address: str, **options: Any) -> dict[str, Any]:
    return {"backend": {"upstream": {"servers": [address], **options}}, "amqtt": {}}


@dataclass
class Cell:
    """One of the matrix. Its devices have ids of this test alone."""

    front: Front
    version: str
    route: Route
    certificates: Certificates
    name: str

    def device(self, suffix: str = "", **options: Any) -> Device:
        device = Device(self.route, self.version, self.name + suffix, self.certificates, **options)
        assert device.answer == "Success"
        return device


@pytest.fixture
def cell(
    broker: str,
    version: str,
    kind: str,
    by: str,
    fronts: Fronts,
    certificates: Certificates,
    request: pytest.FixtureRequest,
) -> Cell:
    front = fronts.front(broker, lambda: request.getfixturevalue("cluster"))
    return Cell(front, version, front.routes[kind, by], certificates, f"m{next(_numbers)}")


def cells(*of: tuple[str, str], where: Any = lambda kind, by: True) -> pytest.MarkDecorator:
    """The test is run for these brokers and versions on all routes that `where` picks."""
    rows = [(*pair, *route) for pair in of for route in ROUTES if where(*route)]
    return pytest.mark.parametrize(("broker", "version", "kind", "by"), rows)


SPOKEN = [(broker, version) for broker, versions in VERSIONS.items() for version in versions]
FIVE = [("embedded", "5"), ("mosquitto", "5")]
NEWEST = [(broker, versions[-1]) for broker, versions in VERSIONS.items()]
NOT_SPOKEN = [("rabbitmq", "5"), ("amqtt", "3.1"), ("amqtt", "5")]


@cells(*SPOKEN)
def test_the_row_has_the_clients_own_address(cell: Cell) -> None:
    route = cell.route
    with cell.device() as device:
        row = cell.front.session(cell.name)
        connection = row.connection
        assert (connection.client, connection.client[0]) == (device.own_address, OWN_ADDRESS)
        assert connection.listener == route.listener
        assert connection.proxy_version == {DIRECT: 0, "v1": 1}.get(route.by, 2)
        assert (connection.proxy is None) == (route.by == DIRECT)
        assert row.mqtt_version == _WORDS[cell.version]
        assert (row.upstream is None) == (cell.front.name in ("amqtt", "embedded"))
        tls = connection.tls
        assert (tls is not None) == route.client_speaks_tls
        if tls is not None and route.tls_here:
            assert (tls.ended_at, tls.version, tls.client_cert_cn) == ("broker", "TLSv1.3", None)
        elif tls is not None:
            assert (tls.ended_at, tls.version) == ("proxy", "TLSv1.3")
            assert (tls.client_cert_cn, tls.client_cert_verified) == (CLIENT_NAME, True)


@cells(*SPOKEN)
def test_messages_of_each_qos_and_a_large_one(cell: Cell) -> None:
    best = BEST_QOS[cell.front.name]
    with cell.device("-in") as reader, cell.device("-out") as writer:
        for qos in (0, 1, 2):
            topic = f"{cell.name}/{qos}"
            reader.subscribe(topic, qos)
            writer.publish(topic, b"small", qos)
            assert reader.message() == (topic, b"small", min(qos, best), False)
        writer.publish(f"{cell.name}/1", LARGE, 1)
        assert reader.message() == (f"{cell.name}/1", LARGE, 1, False)


@cells(*SPOKEN)
def test_a_retained_message(cell: Cell) -> None:
    with cell.device("-out") as writer:
        writer.publish(cell.name, b"kept", 1, retain=True)
    with cell.device("-in") as reader:
        reader.subscribe(cell.name, 1)
        assert reader.message() == (cell.name, b"kept", 1, True)


@cells(*SPOKEN)
def test_a_will(cell: Cell) -> None:
    with cell.device("-in") as reader:
        reader.subscribe(cell.name, 1)
        cell.device("-dies", will=cell.name).lose()
        assert reader.message() == (cell.name, b"gone", 1, False)


@cells(*SPOKEN)
def test_a_kept_session_over_a_reconnect(cell: Cell) -> None:
    kept = KEPT_QOS[cell.front.name]
    with cell.device("-kept", clean=False) as reader:
        assert not reader.session_present
        for qos in kept:
            reader.subscribe(f"{cell.name}/{qos}", qos)
    cell.front.wait_disconnected(f"{cell.name}-kept")
    with cell.device("-out") as writer:
        for qos in kept:
            writer.publish(f"{cell.name}/{qos}", b"while away", qos)
    best = BEST_QOS[cell.front.name]
    with cell.device("-kept", clean=False) as reader:
        # In 3.1 its bit is reserved: RabbitMQ sets it, Mosquitto does not.
        assert reader.session_present or cell.version == "3.1"
        expected = [(f"{cell.name}/{qos}", b"while away", min(qos, best), False) for qos in kept]
        assert sorted(reader.message() for _ in expected) == expected


@cells(*FIVE)
def test_a_shared_subscription(cell: Cell) -> None:
    messages: queue.Queue[Message] = queue.Queue()
    with (
        cell.device("-in-1", messages=messages) as one,
        cell.device("-in-2", messages=messages) as two,
        cell.device("-out") as writer,
    ):
        for reader in (one, two):
            reader.subscribe(f"$share/{cell.name}/{cell.name}", 1)
            reader.subscribe(f"{cell.name}/end", 1)
        for number in range(4):
            writer.publish(cell.name, b"%d" % number, 1)
        # Behind the last message to each of the two.
        writer.publish(f"{cell.name}/end", b"", 1)
        received = [messages.get(timeout=WAIT) for _ in range(6)]
        shared = sorted(message.payload for message in received if message.topic == cell.name)
        assert shared == [b"0", b"1", b"2", b"3"], "each goes to one of the two"


@cells(*FIVE)
def test_a_topic_alias(cell: Cell) -> None:
    with cell.device("-in") as reader, cell.device("-out") as writer:
        reader.subscribe(cell.name, 1)
        writer.publish(cell.name, b"by name", 1, alias=1)
        writer.publish("", b"by alias", 1, alias=1)
        assert [reader.message().payload for _ in range(2)] == [b"by name", b"by alias"]


@cells(*NOT_SPOKEN)
def test_a_version_that_the_broker_does_not_speak(cell: Cell) -> None:
    device = Device(cell.route, cell.version, cell.name, cell.certificates)
    assert device.answer == "Unsupported protocol version"
    device.close()


@cells(*NEWEST)
def test_aiomqtt(cell: Cell) -> None:
    route = cell.route
    context = cell.certificates.client_context() if route.client_speaks_tls else None

    async def talk() -> list[tuple[str, Any, int]]:
        async with aiomqtt.Client(
            HOST,
            route.port,
            identifier=cell.name,
            username="user",
            password=plugins.PASSWORD,
            protocol=aiomqtt.ProtocolVersion(PROTOCOLS[cell.version]),
            transport="websockets" if route.websocket else "tcp",
            tls_context=context,
            bind_address=OWN_ADDRESS,
        ) as client:
            row = await asyncio.to_thread(cell.front.session, cell.name)
            assert row.connection.client[0] == OWN_ADDRESS
            received = []
            for qos in (0, 1, 2):
                await client.subscribe(f"{cell.name}/{qos}", qos)
                await client.publish(f"{cell.name}/{qos}", b"hello", qos)
                message = await asyncio.wait_for(anext(aiter(client.messages)), WAIT)
                received.append((str(message.topic), message.payload, message.qos))
        client._client._reset_sockets()
        return received

    best = BEST_QOS[cell.front.name]
    expected = [(f"{cell.name}/{qos}", b"hello", min(qos, best)) for qos in (0, 1, 2)]
    assert asyncio.run(talk()) == expected


@cells(*SPOKEN, where=lambda kind, by: kind in ("tcp", "ssl"))
def test_mosquitto_pub_and_sub(cell: Cell) -> None:
    """They speak no WebSocket. A retained message needs no waiting for the subscriber."""
    route = cell.route
    options = ["-h", HOST, "-p", str(route.port), "-A", OWN_ADDRESS, "-u", "user", "-P", plugins.PASSWORD]
    options += ["-V", cell.version.replace("3.1.1", "311").replace("3.1", "31")]
    if route.client_speaks_tls:
        options += ["--cafile", str(cell.certificates.authority)]
    for qos in (0, 1) if cell.front.name == "rabbitmq" else (0, 1, 2):
        # RabbitMQ answers a PUBLISH of QoS 2 with PUBACK, which Mosquitto's client does not take.
        about = [*options, "-q", str(qos), "-t", f"{cell.name}/{qos}"]
        _run("mosquitto_pub", *about, "-i", f"{cell.name}-out-{qos}", "-r", "-m", "hello")
        said = _run(
            "mosquitto_sub", *about, "-i", f"{cell.name}-in-{qos}", "-C", "1", "-W", "10", "-F", "%q %p"
        )
        assert said == f"{qos} hello\n"


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [find_program(program), *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
