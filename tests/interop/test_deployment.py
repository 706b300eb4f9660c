"""The program of docs/howto/deployment.md serves, drains at SIGTERM and ends, in every way the page runs it.

The server of the README serves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from interop.clients import HEADER
from interop.pages import example
from peers import free_port, is_refused, until
from proxyproto_rs import create_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "howto/deployment.md"
PROGRAM = "/srv/app/.venv/bin/python /srv/app/server.py"
SOURCE = "127.0.0.1"


def write_program(directory: Path) -> Path:
    program = directory / "server.py"
    program.write_text(example(PAGE, "server"))
    return program


class Client:
    """A client behind a proxy that keeps its connection."""

    def __init__(self, port: int) -> None:
        self.sock = create_connection((SOURCE, port), 30, header=HEADER)
        self.lines = self.sock.makefile("rw", newline="\n")

    def is_served(self) -> bool:
        self.lines.write("hello\n")
        self.lines.flush()
        return self.lines.readline() == "192.0.2.1\n"

    def close(self) -> None:
        self.lines.close()
        self.sock.close()


def connect(port: int) -> Client:
    """Wait until the program listens."""
    made: list[Client] = []

    def is_connected() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            made.append(Client(port))
        return bool(made)

    until(is_connected)
    return made[0]


def be_served(port: int) -> Client:
    """Wait until the program listens, and be answered."""
    client = connect(port)
    assert client.is_served()
    return client


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", status, re.M)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@contextlib.contextmanager
def running(command: list[Any], **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **keywords)
    try:
        yield process
    finally:
        process.kill()
        _, log = process.communicate()
        print(log)
    assert "Traceback" not in log


def test_sigterm_lets_clients_finish_and_takes_no_more(tmp_path: Path) -> None:
    with (
        free_port() as port,
        running(
            [sys.executable, "-X", "dev", write_program(tmp_path)],
            env={**os.environ, "PORT": str(port), "TRUSTED": "127.0.0.1 10.0.0.5"},
        ) as process,
    ):
        client = be_served(port)
        process.terminate()
        until(lambda: is_refused((SOURCE, port)))
        assert client.is_served()
        assert process.poll() is None
        client.close()
        assert process.wait() == 0


def test_workers_share_a_socket_and_end_with_their_parent(tmp_path: Path) -> None:
    write_program(tmp_path)
    with free_port() as port:
        workers = tmp_path / "workers.py"
        workers.write_text(example(PAGE, "workers", {'"0.0.0.0", 8000': f'"127.0.0.1", {port}'}))
        with running([sys.executable, "-X", "dev", workers]) as process:
            clients = [be_served(port) for _ in range(8)]
            until(lambda: catches_sigterm(process.pid))
            process.terminate()
            # Connected clients are still served.
            assert all(client.is_served() for client in clients)
            for client in clients:
                client.close()
            assert process.wait() == 0


def start_under_systemd(directory: Path, listening: socket.socket) -> list[Any]:
    """The command in place of systemd: it passes the socket as sd_listen_fds(3) says, and becomes the program."""
    shell = 'exec 3<&"$1"; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=app.socket exec "${@:2}"'
    program = write_program(directory)
    return ["bash", "-c", shell, "-", str(listening.fileno()), sys.executable, "-X", "dev", program]


def test_a_socket_of_systemds_keeps_clients_waiting_during_a_restart(tmp_path: Path) -> None:
    with socket.create_server((SOURCE, 0)) as listening:
        port = listening.getsockname()[1]
        command, fds = start_under_systemd(tmp_path, listening), [listening.fileno()]
        with running(command, pass_fds=fds) as first:
            client = be_served(port)
            first.terminate()
            client.close()
            assert first.wait() == 0
        waiting = Client(port)
        with running(command, pass_fds=fds) as second:
            assert waiting.is_served()
            waiting.close()
            second.terminate()
            assert second.wait() == 0


def test_units_are_valid_to_systemd_itself(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "app.socket").write_text(example(PAGE, "socket-unit"))
    command = {PROGRAM: f"{sys.executable} {write_program(tmp_path)}"}
    (tmp_path / "app.service").write_text(example(PAGE, "service-unit", command))
    verified = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / "app.socket", tmp_path / "app.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    # It also complains of other units of this machine.
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "app." in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr


def test_supervisor_runs_two_processes_on_one_port(tmp_path: Path) -> None:
    with free_port() as port:
        changes = {
            PROGRAM: f"{sys.executable} -X dev {write_program(tmp_path)}",
            'TRUSTED="10.0.0.5 10.0.0.6"': 'TRUSTED="127.0.0.1"',
            'PORT="8000"': f'PORT="{port}"',
        }
        program = example(PAGE, "supervisor", changes)
        configuration = tmp_path / "supervisord.conf"
        configuration.write_text(
            f"[supervisord]\nnodaemon=true\nuser={os.geteuid()}\nchildlogdir={tmp_path}\n"
            f"logfile={tmp_path}/supervisord.log\npidfile={tmp_path}/supervisord.pid\n{program}"
        )
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", configuration]
        with running(command, stdout=subprocess.DEVNULL, cwd=tmp_path) as process:
            client = be_served(port)
            log = tmp_path / "supervisord.log"
            until(lambda: "spawned: 'app_1'" in log.read_text())
            client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        stopped = re.findall(r"stopped: (app_\d) \((.*)\)", log.read_text())
    assert sorted(name for name, _ in stopped) == ["app_0", "app_1"]


def test_the_image_runs_the_program_so_that_it_gets_signals() -> None:
    steps = [line.split(" ", 1) for line in example(PAGE, "dockerfile").splitlines()]
    ((*_, command),) = [step for step in steps if step[0] == "CMD"]
    python, program = json.loads(command)  # a list, which runs without a shell
    assert python == "python"
    assert ["COPY", f"server.py {program}"] in steps
    assert ["STOPSIGNAL", "SIGTERM"] in steps


def test_the_server_of_the_readme_greets_its_client(tmp_path: Path) -> None:
    with free_port() as port:
        program = tmp_path / "server.py"
        changes = {'"0.0.0.0", 8000': f'"127.0.0.1", {port}, reuse_port=True', "10.0.0.0/8": "127.0.0.1"}
        program.write_text(example("../README.md", "server", changes))
        with running([sys.executable, "-X", "dev", program]):
            client = connect(port)
            assert client.lines.readline() == "hello, 192.0.2.1\n"
            client.close()
