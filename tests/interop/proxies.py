"""HAProxy and nginx as Debian packages them, run in the foreground on sockets that the test has made.

The sockets listen already, so no test waits for a proxy to be ready. The system chooses their ports.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# HAProxy checks every 2 s by default, as on the pages. The tests do not wait that long.
_HAPROXY_PREAMBLE = """
global
    stats socket fd@{stats} level admin
defaults
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    default-server inter 20ms
"""

_NGINX_PREAMBLE = """
load_module {module};
daemon off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ }}
"""

_NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


def find_program(name: str) -> str:
    """Return the program's path, or skip the test."""
    # Debian puts servers where only root looks.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


class HAProxyStats:
    """What HAProxy says of its servers, over its stats socket."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def server(self, name: str) -> dict[str, str]:
        """Return a server's line of ``show stat``, by the names of its columns."""
        with socket.create_connection(self._address, 10) as sock, sock.makefile("r") as lines:
            sock.sendall(b"show stat\n")
            table = csv.DictReader(lines.read().lstrip("# ").splitlines())
        return next(row for row in table if row["svname"] == name)


@contextlib.contextmanager
def running_haproxy(configuration: str, directory: Path, *passed: socket.socket) -> Iterator[HAProxyStats]:
    """Run HAProxy with the `passed` sockets, which the configuration names as ``fd@``."""
    program = find_program("haproxy")
    with socket.create_server(("127.0.0.1", 0)) as stats:
        path = directory / "haproxy.cfg"
        path.write_text(_HAPROXY_PREAMBLE.format(stats=stats.fileno()) + configuration)
        with _running([program, "-db", "-f", path], [stats, *passed], {}):
            yield HAProxyStats(stats.getsockname())


@contextlib.contextmanager
def running_nginx(configuration: str, directory: Path, *passed: socket.socket) -> Iterator[None]:
    """Run nginx with the `passed` sockets, which take the place of ``listen`` directives with their addresses."""
    program = find_program("nginx")
    if not os.path.exists(_NGINX_STREAM):
        pytest.skip("nginx's stream module (libnginx-mod-stream) is not installed")
    path = directory / "nginx.conf"
    path.write_text(_NGINX_PREAMBLE.format(module=_NGINX_STREAM, directory=directory) + configuration)
    # In this way nginx passes its sockets to a new nginx during an upgrade.
    inherited = {"NGINX": "".join(f"{sock.fileno()};" for sock in passed)}
    with _running([program, "-p", directory, "-c", path, "-e", "stderr"], list(passed), inherited):
        yield


@contextlib.contextmanager
def _running(
    command: list[str | Path], passed: list[socket.socket], environment: dict[str, str]
) -> Iterator[None]:
    fds = [sock.fileno() for sock in passed]
    process = subprocess.Popen(
        command, pass_fds=fds, env={**os.environ, **environment}, stderr=subprocess.PIPE
    )
    try:
        yield
    finally:
        died = process.poll()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate()
        print(log.decode(errors="backslashreplace"))  # it quotes what peers sent
    assert died is None, f"{command[0]} ended by itself"
