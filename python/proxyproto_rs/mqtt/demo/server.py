"""The server behind the demo's front: a Mosquitto of this machine, which ends with the demo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_ANSWER = 5.0  # seconds
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # Debian puts servers where only root looks


def require_mosquitto() -> None:
    """Raise FileNotFoundError if this machine has no Mosquitto."""
    for program in ("mosquitto", "mosquitto_passwd"):
        _program(program)


@contextlib.asynccontextmanager
async def mosquitto(folder: Path, username: str, password: str) -> AsyncIterator[str]:
    """Run Mosquitto on a UNIX socket in `folder`, with one user. Give its address."""
    socket, users, configuration = (
        folder / "mosquitto.sock",
        folder / "mosquitto.users",
        folder / "mosquitto.conf",
    )
    await _run(_program("mosquitto_passwd"), "-b", "-c", str(users), username, password)
    # As root it would become the user mosquitto, who may not read the folder.
    lines = [
        f"listener 0 {socket}",
        "allow_anonymous false",
        f"password_file {users}",
        "user root",
        "log_dest none",
    ]
    configuration.write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        _program("mosquitto"), "-c", str(configuration), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.wait_for(_answers(socket, process), _ANSWER)
        yield f"unix:{socket}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(socket: Path, process: asyncio.subprocess.Process) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(socket))
            writer.close()
            return
        if process.returncode is not None:
            raise OSError("mosquitto has ended at once")
        await asyncio.sleep(0.01)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise OSError(f"{command[0]} has failed")


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise FileNotFoundError(
            f"there is no {name} on this machine: install mosquitto, or leave out --upstream"
        )
    return found
