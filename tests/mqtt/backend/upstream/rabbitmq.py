"""RabbitMQ as Debian packages it: a cluster on loopback ports, with epmd of its own, each process ended by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from interop.proxies import find_program
from mqtt import plugins
from peers import free_ports

from .mosquitto import USER

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTED_WITHIN = 120.0  # seconds; it takes 12 for one and 21 for two on an idle machine
_LOOKED_AT_EVERY = 0.05  # seconds


class Node:
    """A node that expects PROXY headers on its MQTT port. It can be killed, and started again."""

    def __init__(self, programs: Path, directory: Path, name: str, environment: dict[str, str]) -> None:
        self._programs = programs
        self._directory = directory
        self._pid_file = directory / "node.pid"
        self.port, distribution = free_ports(2)
        directory.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **environment,
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_BASE_DIR": str(directory),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def configure_as(self, configuration: str) -> None:
        """Write its files, with a configuration in which `{port}` is its port for MQTT."""
        (self._directory / "rabbitmq.conf").write_text(configuration.replace("{port}", str(self.port)))
        (self._directory / "enabled_plugins").write_text("[rabbitmq_mqtt].")

    def configure(self, names: list[str]) -> None:
        """Write its files: it forms a cluster with the nodes of these names."""
        nodes = [
            f"cluster_formation.classic_config.nodes.{at} = {name}" for at, name in enumerate(names, start=1)
        ]
        lines = [
            "listeners.tcp = none",
            "mqtt.listeners.tcp.1 = 127.0.0.1:{port}",
            "mqtt.proxy_protocol = true",
            "mqtt.allow_anonymous = false",
            f"default_user = {USER}",
            f"default_pass = {plugins.PASSWORD}",
            "loopback_users = none",
            "cluster_formation.peer_discovery_backend = classic_config",
            "cluster_formation.discovery_retry_limit = 600",
            "cluster_formation.discovery_retry_interval = 100",
            *nodes,
        ]
        self.configure_as("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it, and do not wait."""
        self._pid_file.unlink(missing_ok=True)
        with (self._directory / "output").open("ab") as output:
            command = [str(self._programs / "rabbitmq-server")]
            self._process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)

    def wait_started(self) -> None:
        """Wait until it serves MQTT."""
        assert self._process is not None
        deadline = time.monotonic() + _STARTED_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self._process.poll() is not None:
                break
            time.sleep(_LOOKED_AT_EVERY)
        raise AssertionError((self._directory / "output").read_text())

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it by its pid file, and wait until it has gone. One that does not run stays as it is."""
        process, self._process = self._process, None
        if process is None:
            return
        # The process is a shell, and the node is its child. Killed before it has written its pid, it has not begun.
        pid = int(self._pid_file.read_text()) if self._pid_file.exists() else process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, by)
        process.wait(_STARTED_WITHIN)

    def kill(self) -> None:
        """End it as a failure of its machine's power would."""
        self.end(signal.SIGKILL)

    async def connections(self) -> dict[str, Listed]:
        """What `rabbitmqctl list_mqtt_connections` says of all nodes, by client id."""
        command = [str(self._programs / "rabbitmqctl"), "-q", "--formatter", "json", "list_mqtt_connections"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, *Listed.COLUMNS],
            env=self._environment,
            capture_output=True,
            check=True,
        )
        return {row["client_id"]: Listed(row) for row in json.loads(done.stdout)}


class Listed:
    """A line of the list of connections."""

    COLUMNS = ("client_id", "conn_name", "peer_host", "peer_port", "ssl", "ssl_protocol")

    def __init__(self, row: dict[str, Any]) -> None:
        # Erlang writes an address as its numbers.
        numbers = row["peer_host"]
        raw = (
            bytes(numbers) if len(numbers) == 4 else b"".join(number.to_bytes(2, "big") for number in numbers)
        )
        self.peer: tuple[str, int] = (str(ipaddress.ip_address(raw)), row["peer_port"])
        self.name: str = row["conn_name"]
        self.tls: str | None = row["ssl_protocol"] if row["ssl"] else None


class Cluster:
    """Nodes that know each other."""

    def __init__(self, directory: Path, size: int) -> None:
        programs = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin"))
        if not programs:
            pytest.skip("rabbitmq-server is not installed")
        (self._epmd_port,) = free_ports(1)
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),  # of the cookie, which nodes share
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        cookie = directory / ".erlang.cookie"
        cookie.write_text("TESTS")
        cookie.chmod(0o400)
        names = [f"r{number}@localhost" for number in range(1, size + 1)]
        self.nodes: list[Node] = [
            Node(programs[-1], directory / name, name, self._environment) for name in names
        ]
        # The first forms the cluster alone. If all did, each would first wait for the others.
        for at, node in enumerate(self.nodes):
            node.configure(names[:1] if at == 0 else names)

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        # epmd would otherwise start as a daemon that nobody owns.
        command = [find_program("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"]
        with subprocess.Popen(command, env=self._environment) as epmd:
            try:
                # All at once they may take a minute to agree on a leader: the first has to be there.
                for together in (self.nodes[:1], self.nodes[1:]):
                    for node in together:
                        node.start()
                    for node in together:
                        node.wait_started()
                yield
            finally:
                for node in self.nodes:
                    node.end()
                epmd.terminate()
