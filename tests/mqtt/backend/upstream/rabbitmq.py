"""RabbitMQ as Debian packages it: one node on loopback ports, with epmd of its own, each ended by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from interop.proxies import find_program
from mqtt import plugins

from .mosquitto import USER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STARTED_WITHIN = 120.0  # seconds; it takes 12 on an idle machine


class RabbitMQ:
    """A node that expects PROXY headers on its MQTT port."""

    def __init__(self, directory: Path) -> None:
        programs = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin"))
        if not programs:
            pytest.skip("rabbitmq-server is not installed")
        self._programs = programs[-1]
        self._directory = directory
        self._pid_file = directory / "node.pid"
        self.port, distribution, self._epmd_port = _free_ports(3)
        directory.mkdir()
        (directory / "rabbitmq.conf").write_text(
            f"""
            listeners.tcp = none
            mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}
            mqtt.proxy_protocol = true
            mqtt.allow_anonymous = false
            default_user = {USER}
            default_pass = {plugins.PASSWORD}
            loopback_users = none
            """
        )
        (directory / "enabled_plugins").write_text("[rabbitmq_mqtt].")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "RABBITMQ_NODENAME": "r1@localhost",
            "RABBITMQ_BASE_DIR": str(directory),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # epmd would otherwise start as a daemon that nobody owns.
        with (
            self._child(find_program("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1") as epmd,
            self._child(str(self._programs / "rabbitmq-server")) as node,
        ):
            try:
                await asyncio.wait_for(self._listening(node), _STARTED_WITHIN)
                yield
            finally:
                if self._pid_file.exists():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(self._pid_file.read_text()), signal.SIGTERM)
                await asyncio.to_thread(node.wait, _STARTED_WITHIN)
                epmd.terminate()

    async def connections(self) -> list[dict[str, Any]]:
        """What `rabbitmqctl list_mqtt_connections` says."""
        columns = ("client_id", "peer_host", "peer_port", "ssl", "ssl_protocol")
        command = [str(self._programs / "rabbitmqctl"), "-q", "--formatter", "json", "list_mqtt_connections"]
        done = await asyncio.to_thread(
            subprocess.run, [*command, *columns], env=self._environment, capture_output=True, check=True
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    @contextlib.contextmanager
    def _child(self, *command: str) -> Any:
        with (
            (self._directory / "output").open("ab") as output,
            subprocess.Popen(command, env=self._environment, stdout=output, stderr=output) as child,
        ):
            try:
                yield child
            except BaseException:
                child.terminate()
                raise

    async def _listening(self, node: subprocess.Popen[bytes]) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert node.poll() is None, (self._directory / "output").read_text()
            await asyncio.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
