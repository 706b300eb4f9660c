"""The units of contrib/systemd/, and what systemd does with them: it passes sockets, variables and a place to report to."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mqtt.peers import WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "contrib" / "systemd"
SERVICE, SOCKET = UNITS / "proxyproto-rs-broker.service", UNITS / "proxyproto-rs-broker.socket"

INSTALLED = "/opt/proxyproto-rs/bin/proxyproto-rs"
CONFIGURATION = "/etc/proxyproto-rs"

# Becomes the program as systemd's child does: the socket is fd 3, and memory cannot become executable (prctl(2),
# PR_SET_MDWE; kernels before 6.3 refuse, and then nothing is forbidden).
_CHILD = """
import ctypes, os, sys
fd, name, no_executable_memory, *command = sys.argv[1:]
os.dup2(int(fd), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
if no_executable_memory == "yes":
    ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(command[0], command)
"""


def settings(unit: Path) -> dict[str, list[str]]:
    """The keys of a unit file, with all the values that each has."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.M):
        found.setdefault(key, []).append(value)
    return found


def command_of(line: str, directory: Path) -> list[str]:
    """A command of the unit, with the program of this machine and the configuration of a test."""
    words = [word.replace(CONFIGURATION, str(directory)) for word in shlex.split(line)]
    return [
        *([sys.executable, "-m", "proxyproto_rs.cli"] if words[0] == INSTALLED else words[:1]),
        *words[1:],
    ]


class Service:
    """The service, started as its unit says."""

    def __init__(self, directory: Path, listening: socket.socket) -> None:
        self._settings = settings(SERVICE)
        (name,) = settings(SOCKET)["FileDescriptorName"]
        (start,) = self._settings["ExecStart"]
        (no_executable_memory,) = self._settings["MemoryDenyWriteExecute"]
        self._directory = directory
        self._reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reports.bind(str(directory / "notify"))
        self._reports.settimeout(WAIT)
        # systemd gives a service no variables of whoever started it.
        self._environment = {
            "PATH": os.defpath,
            "NOTIFY_SOCKET": str(directory / "notify"),
            "STATE_DIRECTORY": str(directory),
        }
        fd = str(listening.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, fd, name, no_executable_memory, *command_of(start, directory)],
            pass_fds=[listening.fileno()],
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self) -> list[str]:
        """What it tells systemd next."""
        return self._reports.recv(4096).decode().split("\n")

    def reload(self) -> list[int]:
        """Run the commands of `systemctl reload` until one fails. Return their statuses."""
        done = []
        for line in self._settings["ExecReload"]:
            command = command_of(line.replace("$MAINPID", str(self._process.pid)), self._directory)
            done.append(subprocess.run(command, env=self._environment, check=False).returncode)
            if done[-1]:
                break
        return done

    def stop(self) -> int:
        """Stop it as systemd does. Return its status."""
        self._process.terminate()
        return self._process.wait()

    def close(self) -> str:
        """Make sure that it has ended. Return its log."""
        self._process.kill()
        _, log = self._process.communicate()
        self._reports.close()
        (self._directory / "notify").unlink()
        return log


@contextlib.contextmanager
def started(directory: Path, listening: socket.socket) -> Iterator[Service]:
    """The service, ready. Its log is printed at the end."""
    service = Service(directory, listening)
    try:
        assert service.report()[0] == "READY=1"
        yield service
    finally:
        print(service.close())
