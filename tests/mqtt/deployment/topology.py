"""What contrib/compose/compose.yaml starts, as processes of this machine and from the same files.

Only addresses, ports and paths are replaced, and Prometheus asks each second. The kernel chooses the ports.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from interop.proxies import find_program
from mqtt import postgres
from mqtt.backend.embedded.nodes import two_free_ports
from mqtt.backend.upstream.rabbitmq import Cluster
from mqtt.peers import WAIT, connect
from peers import free_ports
from proxyproto_rs import Header, create_connection

from .units import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMPOSE = ROOT / "contrib" / "compose"
NODES = ("broker1", "broker2", "broker3")

_STARTED_WITHIN = 60.0  # seconds; three brokers take 3 on an idle machine
_LOOKED_AT_EVERY = 0.05  # seconds


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with other addresses and paths. Each of the old ones must be there, so no file drifts away from its test."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not there"
        text = text.replace(old, new)
    return text


def wait_until(condition: Callable[[], bool], within: float = WAIT) -> None:
    """Wait for what only asking again can tell."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it has not come in time"
        time.sleep(_LOOKED_AT_EVERY)


@dataclass
class Node:
    """One of the three brokers."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    token: str
    certificate: Path
    ports: dict[str, int] = field(default_factory=dict)
    """By the name of the listener, and `http`."""

    def is_started(self) -> bool:
        """Whether it serves. Raises AssertionError with its log if it has ended."""
        text = self.log.read_text()
        assert self.process.poll() is None, text
        if "started listeners=" not in text:
            return False
        (self.ports["http"],) = (int(port) for port in re.findall(r"http url=https://\S+?:(\d+)/", text))
        for listener in self.ask("GET", "/api/listeners")["listeners"]:
            self.ports[listener["name"]] = int(listener["address"].rpartition(":")[2])
        return True

    def ask(self, method: str, path: str, body: Any = None, **parameters: str) -> Any:
        """Ask its API."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        request = urllib.request.Request(
            f"https://localhost:{self.ports['http']}{path}{query}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        context = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=WAIT, context=context) as answer:
            return json.loads(answer.read() or b"null")

    def sessions(self) -> dict[str, dict[str, Any]]:
        """The sessions that it lists, by client id."""
        rows = self.ask("GET", "/api/v2/client-session", pageSize="100", page="0")["data"]
        return {row["clientId"]: row for row in rows}

    def log_in(self, client_id: str, address: str, password: str) -> bytes:
        """What a client gets that comes past HAProxy, with a header as HAProxy sends it; b"" if it is closed."""
        header = Header.v2((address, 40000), ("198.51.100.1", 1883))
        with (
            contextlib.suppress(ConnectionError),
            create_connection(("127.0.0.1", self.ports["tcp"]), WAIT, header=header) as sock,
        ):
            sock.sendall(connect(client_id, username="device", password=password.encode()).encode())
            return sock.recv(4)
        return b""


@dataclass
class Deployment:
    """All of it, running."""

    directory: Path
    secrets: Path
    nodes: list[Node]
    ports: dict[int, int]
    """HAProxy's, by those of its file."""

    @property
    def password(self) -> str:
        """That of the user `device`."""
        return (self.secrets / "device").read_text().strip()

    def client(self, port: int, address: str) -> socket.socket:
        """A connection from this address to HAProxy; to 8883 with TLS."""
        sock = socket.create_connection(("127.0.0.1", self.ports[port]), WAIT, source_address=(address, 0))
        if port != 8883:
            return sock
        context = ssl.create_default_context(cafile=str(self.secrets / "server.pem"))
        return context.wrap_socket(sock, server_hostname="localhost")

    def metrics(self) -> Prometheus:
        """Prometheus with the file of the deployment. Start it as a context."""
        targets = {f"{node.name}:8083": f"localhost:{node.ports['http']}" for node in self.nodes}
        text = replaced(
            (COMPOSE / "prometheus.yml").read_text(),
            {
                **targets,
                "/run/secrets": str(self.secrets),
                "proxyproto-rs.rules.yml": str(ROOT / "contrib/prometheus/proxyproto-rs.rules.yml"),
                "scrape_interval: 15s": "scrape_interval: 1s",
            },
        )
        path = self.directory / "prometheus.yml"
        path.write_text(text)
        return Prometheus(path)


class Prometheus:
    """Prometheus as Debian packages it."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    def __enter__(self) -> Prometheus:
        program = find_program("prometheus")
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        self._data = tempfile.TemporaryDirectory(prefix="prometheus-")
        self._log = self._configuration.with_name("prometheus.log").open("wb")
        options = [f"--storage.tsdb.path={self._data.name}", f"--web.listen-address=127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [program, f"--config.file={self._configuration}", *options], stdout=self._log, stderr=self._log
        )
        wait_until(self._answers, _STARTED_WITHIN)
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        self._log.close()
        self._data.cleanup()

    def get(self, path: str) -> Any:
        """Ask its API."""
        with urllib.request.urlopen(self._url + path, timeout=WAIT) as answer:
            return json.loads(answer.read())["data"]

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._configuration.with_name("prometheus.log").read_text()
        with contextlib.suppress(OSError):
            self.get("/api/v1/targets")
            return True
        return False


@contextlib.contextmanager
def deployed(directory: Path, profile: str) -> Iterator[Deployment]:
    """Start the deployment with a profile of compose.yaml, in the order of its `depends_on`, and end all of it."""
    haproxy = find_program("haproxy")
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    secrets = directory / "secrets"
    subprocess.run([COMPOSE / "make-secrets", secrets], check=True)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.serving(programs))
        _make_database(server, secrets)
        changes = _rabbitmq(stack, directory, secrets) if profile == "rabbitmq" else _own_cluster(stack)
        nodes = _brokers(stack, directory, secrets, profile, changes)
        yield Deployment(directory, secrets, nodes, _haproxy(stack, directory, haproxy, nodes))


def _make_database(server: postgres.Server, secrets: Path) -> None:
    """What the image of PostgreSQL does with POSTGRES_USER and POSTGRES_DB."""
    psql = ["psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--host={server.directory}", "--username=tests"]
    for statement in ("CREATE ROLE mqtt LOGIN", "CREATE DATABASE mqtt OWNER mqtt"):
        subprocess.run([*psql, "--dbname=postgres", f"--command={statement}"], check=True)
    store = secrets / "store"
    store.chmod(0o600)
    host = urllib.parse.quote(str(server.directory), safe="")
    store.write_text(replaced(store.read_text().strip(), {"@postgres/mqtt": f"@/mqtt?host={host}"}))


def _rabbitmq(stack: contextlib.ExitStack, directory: Path, secrets: Path) -> dict[str, str]:
    """Start both nodes. Return what stands for their addresses."""
    (directory / "rabbitmq").mkdir()
    cluster = Cluster(directory / "rabbitmq", size=2)
    configuration = replaced(
        (COMPOSE / "rabbitmq.conf").read_text(),
        {
            "0.0.0.0:1883": "127.0.0.1:{port}",
            "rabbit@rabbitmq1": "r1@localhost",
            "rabbit@rabbitmq2": "r2@localhost",
        },
    )
    assert (COMPOSE / "enabled_plugins").read_text().strip() == "[rabbitmq_mqtt]."
    for node in cluster.nodes:
        node.configure_as(configuration + (secrets / "rabbitmq-users.conf").read_text())
    stack.enter_context(cluster.running())
    return {f"rabbitmq{number}:1883": address for number, address in enumerate(cluster.addresses, 1)}


def _own_cluster(stack: contextlib.ExitStack) -> dict[str, str]:
    # Each node uses its port and the one behind it.
    return {f"peer{n}:5363": f"127.0.0.1:{stack.enter_context(two_free_ports())}" for n in (1, 2, 3)}


def _brokers(
    stack: contextlib.ExitStack, directory: Path, secrets: Path, profile: str, changes: dict[str, str]
) -> list[Node]:
    configuration = directory / "broker.yaml"
    configuration.write_text(
        replaced(
            (COMPOSE / f"broker.{profile}.yaml").read_text(),
            {
                **changes,
                "/run/secrets": str(secrets),
                "172.30.83.2": "127.0.0.1",
                "0.0.0.0:1883": "127.0.0.1:0",
                "0.0.0.0:8883": "127.0.0.1:0",
                "0.0.0.0:8083": "127.0.0.1:0",
            },
        )
    )
    nodes = []
    for number, name in enumerate(NODES, 1):
        state = directory / name
        state.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOSTNAME": name,
            "NODE": str(number),
            "STATE_DIRECTORY": str(state),
        }
        command = [sys.executable, "-m", "proxyproto_rs.cli", "broker", "--config", str(configuration)]
        checked = subprocess.run(
            [*command, "--check"], env=environment, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
        with (state / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
        stack.callback(end, process)
        token = (secrets / "token").read_text().strip()
        nodes.append(Node(name, process, state / "log", token, secrets / "server.pem"))
    for node in nodes:
        wait_until(node.is_started, _STARTED_WITHIN)
    return nodes


def _haproxy(stack: contextlib.ExitStack, directory: Path, program: str, nodes: list[Node]) -> dict[int, int]:
    """Start HAProxy on sockets that listen already. Return its ports by those of the file."""
    sockets = {
        port: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for port in (1883, 8883, 8404)
    }
    listeners = {1883: "tcp", 8883: "ssl"}
    configuration = replaced(
        (COMPOSE / "haproxy.cfg").read_text(),
        {
            "bind 127.0.0.1:8404": f"bind fd@{sockets[8404].fileno()}",
            **{f"bind :{port}": f"bind fd@{sockets[port].fileno()}" for port in listeners},
            **{
                f" {node.name}:{port}": f" 127.0.0.1:{node.ports[name]}"
                for node in nodes
                for port, name in listeners.items()
            },
        },
    )
    path = directory / "haproxy.cfg"
    path.write_text(configuration)
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-db", "-f", path],
            pass_fds=[sock.fileno() for sock in sockets.values()],
            stdout=log,
            stderr=log,
        )
    stack.callback(end, process, signal.SIGUSR1)
    ports = {port: sock.getsockname()[1] for port, sock in sockets.items()}
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[8404]}/healthz", timeout=WAIT) as healthy:
        assert healthy.status == 200
    return ports


def end(process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM) -> None:
    """End a process, and wait until it has gone."""
    process.send_signal(by)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
