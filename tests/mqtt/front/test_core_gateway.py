"""`_core.Gateway`, driven as the front drives it, with a server behind it that is a few lines of Python."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import CLIENT, DISCONNECT, WELCOME, connack, connect, publish
from proxyproto_rs import Header, Listener
from proxyproto_rs._core import Ended, Gateway, ListenerReport, Login, Refused, ServerChange, Welcomed

from .scripted_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT = 10.0


class Front:
    """A gateway, its listener, and the events that it has told."""

    def __init__(self, gateway: Gateway, listener: Listener) -> None:
        self.gateway = gateway
        self.listener = listener
        self.events: list[Any] = []

    def until(self, kind: type[Any]) -> Any:
        """Wait for the next event of a kind, and skip what is told of servers."""
        deadline = time.monotonic() + WAIT
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
                assert isinstance(event, ServerChange), event
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__}"
            select.select([self.gateway.fileno()], [], [], left)
            self.events += self.gateway.take()

    def dial(self, *parts: bytes) -> socket.socket:
        connection = socket.create_connection(self.listener.getsockname()[:2], WAIT)
        connection.sendall(b"".join(parts))
        return connection


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def front(server: Server) -> Iterator[Front]:
    gateway = Gateway(options(server.address))
    with Listener("127.0.0.1", 0, proxy_protocol="required", trusted=["127.0.0.0/8"]) as listener:
        listener.hand_to(gateway, name="tcp", max_unauthenticated=10)
        yield Front(gateway, listener)
    gateway.close()


def options(*servers: str, **upstream: Any) -> dict[str, Any]:
    return {"workers": 1, "mqtt": {}, "upstream": {"servers": list(servers), **upstream}}


def header(host: str = CLIENT[0]) -> bytes:
    return Header.v2((host, CLIENT[1]), ("198.51.100.1", 1883)).encode()


def test_a_session_from_the_login_to_its_end(front: Front, server: Server) -> None:
    packet = connect("dev", keep_alive=30).encode()
    with front.dial(header(), packet) as client:
        login = front.until(Login)
        arrival = login.arrival
        assert (arrival.listener, arrival.header.source, arrival.forwarded, arrival.tls) == (
            "tcp",
            CLIENT,
            None,
            None,
        )
        assert arrival.peername == client.getsockname()
        assert arrival.sockname == front.listener.getsockname()
        assert abs(arrival.at - time.time()) < WAIT
        said = login.connect
        assert (said.mqtt_version, said.client_id, said.clean_session, said.keep_alive) == (
            "MQTT_3_1_1",
            "dev",
            True,
            30,
        )
        assert (said.session_expiry, said.will_topic, said.username, said.raw) == (0, None, "user", packet)
        assert front.gateway.admit(login.token, username="boss", password=None)
        assert client.recv(4) == WELCOME
        welcomed = front.until(Welcomed)
        assert (welcomed.token, welcomed.server, welcomed.server_address) == (
            login.token,
            server.address,
            server.address,
        )
        assert (welcomed.client_id, welcomed.keep_alive, welcomed.session_present) == ("dev", 30, False)
        assert 0 < welcomed.connect_time < WAIT
        assert server.headers[0].source == CLIENT
        assert server.headers[0].unique_id == arrival.session_id.encode()
        assert server.connects == [connect("dev", keep_alive=30, username="boss", password=None).encode()]
        message = publish("a/b", b"hello")
        client.sendall(message)
        assert server.received.get(timeout=WAIT) == message
        traffic = front.gateway.traffic(login.token)
        assert traffic is not None
        assert traffic.packets_in == 2
        client.sendall(DISCONNECT)
    ended = front.until(Ended)
    assert (ended.token, ended.reason) == (login.token, "disconnect")
    assert ended.traffic.bytes_in == len(packet) + len(message) + len(DISCONNECT)
    assert ended.traffic.packets_in == 3
    assert front.gateway.traffic(login.token) is None
    numbers = front.gateway.stats()
    assert numbers["listeners"]["tcp"]["packets_in"][3] == 1
    assert (numbers["servers"][0]["answered"], numbers["servers"][0]["failures"]) == (1, 0)


def test_a_refusal_has_its_reason_and_its_answer(front: Front) -> None:
    with front.dial(header(), connect("dev").encode()) as client:
        login = front.until(Login)
        assert front.gateway.refuse(login.token, "blocked", "by CLIENT_ID dev")
        assert client.recv(9) == connack(5)
        refused = front.until(Refused)
    assert (refused.token, refused.reason, refused.detail) == (login.token, "blocked", "by CLIENT_ID dev")
    assert refused.connect.client_id == "dev"
    assert (refused.server_address, refused.server_code, refused.is_bridge_probe) == (None, None, False)
    assert not front.gateway.admit(login.token)
    assert not front.gateway.end(login.token, "administrative")


def test_what_the_server_says_is_told(front: Front, server: Server) -> None:
    server.answer = connack(4)
    with front.dial(header(), connect("dev").encode()) as client:
        front.gateway.admit(front.until(Login).token)
        refused = front.until(Refused)
        assert client.recv(9) == connack(4)
    assert (refused.reason, refused.server_code) == ("bad-credentials", 4)
    assert refused.server_address == server.address


def test_a_packet_that_is_no_connect_is_refused_without_a_login(front: Front) -> None:
    with front.dial(header(), b"GET / HTTP/1.1\r\n\r\n"):
        refused = front.until(Refused)
    assert (refused.token, refused.connect, refused.reason) == (None, None, "malformed-connect")


def test_refusals_of_the_listener_come_through_the_gateway(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    with front.dial(b"\x10\x10\x00\x04MQTT"):
        report = front.until(ListenerReport)
    assert report.listener == "tcp"
    told: list[str] = []
    front.listener.on_refused = lambda refusal: told.append(refusal.reason)
    front.listener.tell(report)
    assert told == ["missing-header"]
    assert "missing-header" in caplog.text


def test_a_session_is_ended(front: Front) -> None:
    with front.dial(header(), connect("dev").encode()) as client:
        login = front.until(Login)
        front.gateway.admit(login.token)
        front.until(Welcomed)
        assert client.recv(4) == WELCOME
        assert front.gateway.end(login.token, "administrative", "by api")
        assert client.recv(1) == b""
    ended = front.until(Ended)
    assert (ended.reason, ended.detail) == ("administrative", "by api")


def test_servers_change_while_it_runs(front: Front, server: Server) -> None:
    other = Server()
    front.gateway.update(options(other.address))
    with front.dial(header(), connect("dev").encode()):
        front.gateway.admit(front.until(Login).token)
        assert front.until(Welcomed).server == other.address
    assert front.until(Ended).reason == "connection-lost"
    other.close()
    assert not server.connects


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"upstream": {"servers": []}}, ValueError, "upstream.servers: at least one is needed"),
        ({"upstream": {"servers": "a:1"}}, TypeError, "upstream.servers must be a list, not str"),
        (
            {"upstream": {"servers": ["host"]}},
            ValueError,
            'upstream.servers: a server is "host:port", "[IPv6 address]:port" or "unix:/path", not "host"',
        ),
        (
            {"upstream": {"servers": ["a:1"], "balance": "any"}},
            ValueError,
            'upstream.balance: must be one of least-connections, round-robin, client-id, not "any"',
        ),
        ({"upstream": {"servers": ["a:1"], "tls": 1}}, TypeError, "upstream.tls must be dict, not int"),
        (
            {"upstream": {"servers": ["a:1"]}, "mqtt": {"auth_timeout": 0}},
            ValueError,
            "mqtt.auth_timeout: must be greater than 0",
        ),
        (
            {"upstream": {"servers": ["a:1"], "check": {"fall": 0}}},
            ValueError,
            "upstream.check.fall: must be at least 1",
        ),
        ({"upstream": {"servers": ["a:1"], "versions": ["4"]}}, ValueError, "upstream.versions: must be 3.1"),
    ],
)
def test_options_that_cannot_be_meant(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    for refuse in (Gateway.check, Gateway):
        with pytest.raises(error) as caught:
            refuse(wrong)
        assert str(caught.value).startswith(text)


def test_a_reason_that_does_not_exist_is_an_error(front: Front) -> None:
    with pytest.raises(ValueError, match='no such reason: "nonsense"'):
        front.gateway.refuse(1, "nonsense")


def test_a_second_listener_needs_another_name(front: Front) -> None:
    with Listener("127.0.0.1", 0) as other, pytest.raises(FileExistsError, match="tcp"):
        other.hand_to(front.gateway, name="tcp", max_unauthenticated=0)
    assert front.gateway.change_listener("tcp", max_unauthenticated=1)
    assert not front.gateway.change_listener("ssl", max_unauthenticated=1)


def test_the_fd_stays_readable_once_closed(server: Server) -> None:
    gateway = Gateway(options(server.address))
    gateway.take()
    gateway.close()
    gateway.close()
    assert select.select([gateway.fileno()], [], [], WAIT)[0]


def test_a_forked_child_cannot_use_it_and_the_parent_goes_on(front: Front) -> None:
    with front.dial(header(), connect("dev").encode()) as client:
        front.gateway.admit(front.until(Login).token)
        front.until(Welcomed)
        reader, writer = os.pipe()
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(front.gateway, writer))
        child.start()
        os.close(writer)
        with open(reader, "rb") as said:
            text = said.read().decode()
        child.join(WAIT)
        assert child.exitcode == 0
        assert text.startswith("the gateway was made before a fork")
        client.sendall(DISCONNECT)
        assert front.until(Ended).reason == "disconnect"


def test_connections_end_although_a_forked_child_has_copies_of_them(front: Front, server: Server) -> None:
    tokens, clients = {}, {}
    for name in ("lost", "ended"):
        client = clients[name] = front.dial(header(), connect(name).encode())
        tokens[name] = front.until(Login).token
        front.gateway.admit(tokens[name])
        front.until(Welcomed)
        assert client.recv(4) == WELCOME
    lost, ended = clients["lost"], clients["ended"]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # The clients of the test are those of the parent alone.
        for fd in (lost.fileno(), ended.fileno(), writer):
            os.close(fd)
        os.read(reader, 1)
        os._exit(0)
    try:
        lost.close()
        assert front.until(Ended).reason == "connection-lost"
        assert server.ended.acquire(timeout=WAIT), "its server does not know, and publishes no will"
        front.gateway.end(tokens["ended"], "administrative")
        assert front.until(Ended).reason == "administrative"
        assert server.ended.acquire(timeout=WAIT)
        assert ended.recv(1) == b""
    finally:
        ended.close()
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_a_forked_child_holds_no_descriptor_of_the_gateways_connections(front: Front, server: Server) -> None:
    clients = [front.dial(header(), connect(f"dev-{number}").encode()) for number in range(8)]
    waiting = front.dial(header(), connect("waiting").encode())
    logins = [front.until(Login) for _ in range(9)]
    for login in logins:
        if login.connect.client_id != "waiting":
            front.gateway.admit(login.token)
            front.until(Welcomed)
    assert {client.recv(4) for client in clients} == {WELCOME}
    front_port, server_port = front.listener.getsockname()[1], int(server.address.rpartition(":")[2])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            gateways = [
                local
                for local, remote in _connected()
                if local == front_port or (remote == server_port and local != server_port)
            ]
            os.write(writer, repr(gateways).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        assert said.read() == b"[]"
    assert os.waitpid(child, 0)[1] == 0
    assert len([local for local, _ in _connected() if local == front_port]) == 9
    # The parent's go on.
    for client in (*clients, waiting):
        client.sendall(DISCONNECT)
        client.close()
    for _ in clients:
        assert server.ended.acquire(timeout=WAIT)


def test_a_program_may_fork_while_clients_come_and_go(front: Front, server: Server) -> None:
    """Workers rest for each fork, also if several threads fork; each child can make a gateway of its own."""

    def child() -> None:
        Gateway(options(server.address)).close()

    children: list[int] = []

    def fork() -> None:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    child()
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)

    threads = [threading.Thread(target=fork) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        with front.dial(header(), connect(f"dev-{number}").encode()) as client:
            front.gateway.admit(front.until(Login).token)
            front.until(Welcomed)
            assert client.recv(4) == WELCOME
            client.sendall(DISCONNECT)
        assert front.until(Ended).reason == "disconnect"
    for thread in threads:
        thread.join(WAIT)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 15


def _connected() -> list[tuple[int, int]]:
    """The ports of this process's TCP connections: its own, and the peer's."""
    ports = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
            if copy.family == socket.AF_INET:
                ports.append((copy.getsockname()[1], copy.getpeername()[1]))
    return ports


def _in_child(gateway: Gateway, writer: int) -> None:
    try:
        gateway.take()
    except RuntimeError as wrong:
        os.write(writer, str(wrong).encode())
    gateway.close()
    del gateway
