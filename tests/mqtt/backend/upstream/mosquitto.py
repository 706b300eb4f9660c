"""Mosquitto as Debian packages it, on a loopback port, ended by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

from interop.proxies import find_program
from mqtt import plugins
from mqtt.peers import WAIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

USER = "user"
"""Everybody's name; the password is that of the amqtt plugins of the tests."""


class Mosquitto:
    """A Mosquitto that can be stopped and started again on its port."""

    def __init__(self, directory: Path, *lines: str) -> None:
        self._program = find_program("mosquitto")
        self._directory = directory
        self._lines = lines
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        process = self._process = await asyncio.to_thread(self._spawn)

        async def answers() -> None:
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                assert process.poll() is None, "Mosquitto ended by itself"
                await asyncio.sleep(0.01)

        await asyncio.wait_for(answers(), WAIT)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await asyncio.to_thread(process.wait, WAIT)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._directory.mkdir(exist_ok=True)
        passwords, configuration = self._directory / "passwords", self._directory / "mosquitto.conf"
        command = [find_program("mosquitto_passwd"), "-b", "-c", str(passwords), USER, plugins.PASSWORD]
        subprocess.run(command, check=True, capture_output=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {passwords}",
            "user root",  # it would become the user mosquitto, who may not read the files of a test
            "log_dest none",
            *self._lines,
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return subprocess.Popen([self._program, "-c", configuration])


@contextlib.asynccontextmanager
async def mosquitto(directory: Path, *lines: str) -> AsyncIterator[Mosquitto]:
    """Run a Mosquitto; `lines` are added to its configuration."""
    server = Mosquitto(directory, *lines)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
