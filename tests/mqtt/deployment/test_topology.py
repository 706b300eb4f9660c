"""The deployment of contrib/compose/ as processes: real addresses, blocks and metrics are those of all three nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mqtt.backend.embedded.nodes import is_built
from mqtt.peers import WELCOME, connack, connect, publish, subscribe

from .topology import NODES, Deployment, deployed, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

# RabbitMQ alone takes half a minute to form its cluster, and minutes on a machine that is busy.
pytestmark = pytest.mark.timeout(600)

PLAIN, SECURE = 1883, 8883
ONE, OTHER = "127.83.0.7", "127.83.0.8"
"""Clients: on loopback every address is this machine's."""


@pytest.fixture(
    scope="module",
    params=[
        "rabbitmq",
        pytest.param(
            "embedded",
            marks=pytest.mark.skipif(
                not is_built(), reason="the extension is built without clusters, which need protoc"
            ),
        ),
    ],
)
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("deployment"), request.param) as running:
        yield running


def log_in(deployment: Deployment, sock: socket.socket, client_id: str) -> bytes:
    sock.sendall(connect(client_id, username="device", password=deployment.password.encode()).encode())
    return sock.recv(4)


def test_every_node_knows_every_clients_own_address(deployment: Deployment) -> None:
    with deployment.client(PLAIN, ONE) as one, deployment.client(SECURE, OTHER) as other:
        assert log_in(deployment, one, "dev-1") == WELCOME
        assert log_in(deployment, other, "dev-2") == WELCOME
        wanted = {"dev-1": (*one.getsockname(), "tcp"), "dev-2": (*other.getsockname(), "ssl")}
        for node in deployment.nodes:
            wait_until(lambda node=node: node.sessions().keys() >= wanted.keys())  # type: ignore[misc]
            rows = node.sessions()
            for client_id, where in wanted.items():
                row = node.ask("GET", "/api/client-session", clientId=client_id)
                assert (row["clientIpAdr"], row["clientPort"], row["listener"]) == where
                assert rows[client_id]["clientIpAdr"] == where[0]
            assert [name["nodeId"] for name in node.ask("GET", "/api/nodes")] == list(NODES)


def test_messages_cross_what_stands_behind(deployment: Deployment) -> None:
    subscribers = [deployment.client(port, ONE) for port in (PLAIN, SECURE, PLAIN)]
    try:
        for number, sock in enumerate(subscribers):
            assert log_in(deployment, sock, f"reader-{number}") == WELCOME
            sock.sendall(subscribe("news"))
            assert sock.recv(5)[0] == 0x90
        with deployment.client(SECURE, OTHER) as writer:
            assert log_in(deployment, writer, "writer") == WELCOME
            for sock in subscribers:
                wait_until(lambda sock=sock: _crosses(writer, sock))  # type: ignore[misc]
    finally:
        for sock in subscribers:
            sock.close()


def _crosses(writer: socket.socket, reader: socket.socket) -> bool:
    """Publish, and look whether it arrives: another node may know a subscription a little after its SUBACK."""
    writer.sendall(publish("news", b"hello"))
    reader.settimeout(0.5)
    try:
        return reader.recv(len(publish("news", b"hello"))) == publish("news", b"hello")
    except TimeoutError:
        return False


def test_a_block_on_one_node_holds_on_all(deployment: Deployment) -> None:
    password = deployment.password
    with deployment.client(PLAIN, ONE) as client:
        assert log_in(deployment, client, "blocked-1") == WELCOME
        for node in deployment.nodes:
            assert node.log_in(f"at-{node.name}", ONE, password) == WELCOME
        block = {"type": "IP_ADDRESS", "value": ONE}
        deployment.nodes[0].ask("POST", "/api/blockedClient", {**block, "ipAddress": ONE})
        assert client.recv(1) == b""
    try:
        for node in deployment.nodes:
            wait_until(lambda node=node: node.log_in("again", ONE, password) != WELCOME)  # type: ignore[misc]
            assert node.log_in("neighbour", OTHER, password) == WELCOME
    finally:
        deployment.nodes[1].ask("DELETE", "/api/blockedClient", type="IP_ADDRESS", value=ONE)
    for node in deployment.nodes:
        wait_until(lambda node=node: node.log_in("again", ONE, password) == WELCOME)  # type: ignore[misc]


def test_a_wrong_password_is_refused_with_the_clients_address(deployment: Deployment) -> None:
    with deployment.client(PLAIN, OTHER) as client:
        client.sendall(connect("guess", username="device", password=b"wrong").encode())
        assert client.recv(4) in (connack(4), connack(5))
    for node in deployment.nodes:
        wait_until(
            lambda node=node: (  # type: ignore[misc]
                [
                    (row["ipAddress"], row["reasonCode"])
                    for row in node.ask("GET", "/api/unauthorized/client", pageSize="100", page="0")["data"]
                    if row["clientId"] == "guess"
                ]
                == [(OTHER, "bad-credentials")]
            )
        )


def test_prometheus_asks_every_node(deployment: Deployment) -> None:
    with deployment.metrics() as prometheus:
        wait_until(
            lambda: (
                [target["health"] for target in prometheus.get("/api/v1/targets")["activeTargets"]]
                == ["up"] * 3
            ),
            within=30,
        )
        found = prometheus.get("/api/v1/query?query=proxyproto_mqtt_store_up")["result"]
        assert [series["value"][1] for series in found] == ["1"] * 3
        groups = prometheus.get("/api/v1/rules")["groups"]
        assert "BrokerAway" in [rule["name"] for group in groups for rule in group["rules"]]
