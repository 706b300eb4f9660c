"""`proxyproto-rs broker` as an operator runs it: status, lines, signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from proxyproto_rs import Header, create_connection

from .peers import connack, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

CONFIG = """\
listeners:
  tcp: {{bind: "127.0.0.1:{port}", proxy_protocol: required, proxy: {{trusted: [127.0.0.1]}}}}
store: "sqlite:{directory}/broker.db"
audit: {{file: "{directory}/audit.log"}}
amqtt:
  plugins:
    proxyproto_rs.mqtt.PasswordFile: {{password_file: "{directory}/users.txt"}}
"""

HEADER = Header.v2(("192.0.2.1", 12345), ("198.51.100.1", 1883))
COMMAND = [sys.executable, "-m", "proxyproto_rs.cli", "broker"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "users.txt").write_text(f"user:{QUICK.hash('right')}\n")
    configure(tmp_path)
    return tmp_path


def configure(directory: Path, *, port: int = 0, more: str = "") -> None:
    (directory / "broker.yaml").write_text(CONFIG.format(directory=directory, port=port) + more)


def run(directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        cwd=directory,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def environment(variables: dict[str, str]) -> dict[str, str]:
    names = re.compile(r"MQTT_|LISTENER_|HTTP_|SECURITY_|SQL_|BLOCKED_|JOURNAL_STREAM|STATE_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if not names.match(name)}
    return {**kept, **variables}


class Process:
    """A broker in a process of its own; its standard error, line by line."""

    def __init__(self, directory: Path, *options: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, *options], cwd=directory, env=environment(variables), stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self.start: list[str] = []
        for line in iter(self._process.stderr.readline, ""):
            self.start.append(line)
            if "started listeners=" in line:
                break
        where = re.search(r"listening on \S+:(\d+), ", "".join(self.start))
        assert where, self.start
        self.port = int(where[1])

    def line(self, part: str) -> list[str]:
        """Read until a line holds `part`; return its words."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if part in line:
                return line.split()
        raise AssertionError(f"the broker ended without saying {part!r}")

    def limit_files(self, size: int | None) -> None:
        """Let none of its files grow beyond so many bytes; None: let them grow again."""
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        soft = hard if size is None else size
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        self._process.communicate(timeout=30)
        return self._process.returncode

    def log_in(self, password: str = "right", client: tuple[str, int] = ("192.0.2.1", 12345)) -> bytes:
        """The answer to a CONNECT from `client`."""
        with self.connection(password, client) as sock:
            return answer(sock)

    @contextlib.contextmanager
    def connection(self, password: str, client: tuple[str, int]) -> Iterator[socket.socket]:
        header = Header.v2(client, ("198.51.100.1", 1883))
        with create_connection(("127.0.0.1", self.port), 10, header=header) as sock:
            with contextlib.suppress(ConnectionError):  # refused already
                sock.sendall(connect("dev", password=password.encode()).encode())
            yield sock


def answer(sock: socket.socket) -> bytes:
    """What comes next; b"" at the end of the connection."""
    with contextlib.suppress(ConnectionResetError):
        return sock.recv(100)
    return b""


@contextlib.contextmanager
def running(directory: Path, *options: str, **variables: str) -> Iterator[Process]:
    process = Process(directory, *(options or ("--config", "broker.yaml")), **variables)
    try:
        yield process
    finally:
        process.signal(signal.SIGKILL)
        process.wait()


def test_check_says_nothing_when_all_is_well(directory: Path) -> None:
    done = run(directory, "--config", "broker.yaml", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (directory / "broker.db").exists()
    assert not (directory / "audit.log").exists()


def test_check_and_start_tell_the_same_of_a_broken_file(directory: Path) -> None:
    configure(directory, more="limits: {max_sessions: -1}\nproxi: {}\n")
    said = (
        "proxyproto-rs broker: broker.yaml:8: limits.max_sessions: must be at least 0 (got -1)\n"
        'proxyproto-rs broker: broker.yaml:9: proxi: unknown key (did you mean "proxy"?)\n'
    )
    for options in ([], ["--check"]):
        done = run(directory, "--config", "broker.yaml", *options)
        assert (done.returncode, done.stdout, sorted(done.stderr.splitlines(keepends=True))) == (
            2,
            "",
            sorted(said.splitlines(keepends=True)),
        )


def test_a_bad_certificate_file_is_one_line(directory: Path) -> None:
    (directory / "broker.yaml").write_text(
        "tls_defaults:\n  certfile: no.pem\n  keyfile: no.key\nlisteners:\n  ssl: {bind: '127.0.0.1:0'}\n"
        "store: 'sqlite:broker.db'\n"
        "amqtt: {plugins: {proxyproto_rs.mqtt.PasswordFile: {password_file: users.txt}}}\n"
    )
    for options in ([], ["--check"]):
        done = run(directory, "--config", "broker.yaml", *options)
        assert done.returncode == 2
        assert done.stderr == (
            "proxyproto-rs broker: broker.yaml:2: tls_defaults.certfile: no.pem: no such file\n"
        )


def test_a_bad_password_file_is_one_line(directory: Path) -> None:
    (directory / "users.txt").write_text("user:secret\n")
    for options in ([], ["--check"]):
        done = run(directory, "--config", "broker.yaml", *options)
        assert done.returncode == 2
        assert done.stderr == (
            "proxyproto-rs broker: broker.yaml:7: amqtt.plugins.proxyproto_rs.mqtt.PasswordFile: amqtt says:"
            f" {directory}/users.txt:1: the hash of user 'user' is neither argon2 nor sha512_crypt\n"
        )


def _no_folder(directory: Path) -> None:
    configure(directory, more="node_id: x\n")
    text = (directory / "broker.yaml").read_text()
    (directory / "broker.yaml").write_text(text.replace("/audit.log", "/gone/audit.log"))


def _file_as_folder(directory: Path) -> None:
    text = (directory / "broker.yaml").read_text()
    (directory / "broker.yaml").write_text(text.replace("/broker.db", "/users.txt/broker.db"))


def _no_database(directory: Path) -> None:
    text = (directory / "broker.yaml").read_text()
    path = f"sqlite:{directory}/broker.db"
    (directory / "broker.yaml").write_text(text.replace(path, "postgresql://u:hunter2@127.0.0.1:1/d"))


def _newer(directory: Path) -> None:
    with contextlib.closing(sqlite3.connect(directory / "broker.db")) as db:
        db.execute("PRAGMA user_version = 99")


FILES = [
    (
        "store-is-a-directory",
        lambda directory: (directory / "broker.db").mkdir(),
        "store {directory}/broker.db cannot be opened: Is a directory",
        3,
    ),
    (
        "store-is-no-database",
        lambda directory: (directory / "broker.db").write_bytes(b"x" * 4096),
        "store {directory}/broker.db cannot be opened: file is not a database",
        3,
    ),
    (
        "store-is-newer",
        _newer,
        "store {directory}/broker.db cannot be opened: was written by a newer version (schema 99, this one knows 1)",
        3,
    ),
    (
        "store-in-a-file",
        _file_as_folder,
        "store {directory}/users.txt/broker.db cannot be opened: Not a directory",
        3,
    ),
    (
        "store-does-not-answer",
        _no_database,
        "store postgresql://127.0.0.1:1/d cannot be opened: Connection refused",
        3,
    ),
    (
        "audit-is-a-directory",
        lambda directory: (directory / "audit.log").mkdir(),
        "audit.file: {directory}/audit.log: Is a directory",
        4,
    ),
    (
        "audit-in-no-directory",
        _no_folder,
        "audit.file: {directory}/gone/audit.log: No such file or directory",
        4,
    ),
]


@pytest.mark.parametrize(("spoil", "said", "line"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_check_and_start_tell_the_same_of_files(
    spoil: Callable[[Path], None], said: str, line: int, directory: Path
) -> None:
    spoil(directory)
    before = sorted(directory.iterdir())
    done = run(directory, "--config", "broker.yaml", "--check")
    text = said.format(directory=directory)
    with_key = re.sub("^store ", "store: ", text)
    assert done.stderr == f"proxyproto-rs broker: broker.yaml:{line}: {with_key}\n"
    assert done.returncode == 2
    assert sorted(directory.iterdir()) == before
    done = run(directory, "--config", "broker.yaml")
    assert (done.returncode, done.stderr) == (2, f"proxyproto-rs broker: {text}\n")


def test_check_beside_a_running_broker_changes_nothing(directory: Path) -> None:
    with running(directory) as broker:
        assert broker.log_in("wrong") == connack(5)
        done = run(directory, "--config", "broker.yaml", "--check")
        assert (done.returncode, done.stderr) == (0, "")
        assert (directory / "broker.db-wal").exists()
        broker.signal(signal.SIGTERM)
        assert broker.wait() == 0
    with contextlib.closing(sqlite3.connect(directory / "broker.db")) as db:
        assert db.execute("SELECT count(*) FROM unauthorized_client").fetchone() == (1,)


def test_a_port_in_use_is_one_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(directory, port=port)
        done = run(directory, "--config", "broker.yaml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"proxyproto-rs broker: listeners.tcp.bind: 127.0.0.1:{port}: Address already in use"
    )


def test_without_a_file_only_showing_works(directory: Path) -> None:
    done = run(directory)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "proxyproto-rs broker: There is no --config FILE; --allow-anonymous lets in whoever gives no user name."
    )
    shown = run(directory, "--print-config", MQTT_PROXY_PROTOCOL_ENABLED="true")
    assert shown.returncode == 0
    assert (
        'listeners.ws.proxy_protocol: "required"  # MQTT_PROXY_PROTOCOL_ENABLED' in shown.stdout.splitlines()
    )


def test_without_a_file_one_variable_makes_every_listener_expect_headers(directory: Path) -> None:
    variables = {
        "MQTT_PROXY_PROTOCOL_ENABLED": "true",
        "LISTENER_TCP_BIND_ADDRESS": "127.0.0.1",
        "LISTENER_TCP_BIND_PORT": "0",
        "LISTENER_WS_ENABLED": "false",
        "XDG_STATE_HOME": str(directory),
    }
    with running(directory, "--allow-anonymous", **variables) as broker:
        nobody = connect("dev", username=None, password=None).encode()
        with create_connection(("127.0.0.1", broker.port), 10, header=HEADER) as sock:
            sock.sendall(nobody)
            assert answer(sock) == connack(0)
        assert broker.log_in("anything") == connack(5)  # it knows no user
        with socket.create_connection(("127.0.0.1", broker.port), 10) as direct:
            direct.sendall(connect("dev").encode())
            assert answer(direct) == b""
        broker.line("missing-header: 10")
    assert (directory / "proxyproto-rs" / "broker.db").exists()


def test_the_log_tells_once_where_it_listens(directory: Path) -> None:
    with running(directory) as broker:
        lines = [line for line in broker.start if f":{broker.port}" in line]
        assert len(lines) == 1
        assert "INFO proxyproto_rs.listener listening on" in lines[0]
        assert broker.start[-1].endswith("INFO proxyproto_rs.mqtt started listeners=tcp\n")


def test_a_running_broker_takes_what_passwd_has_changed(directory: Path) -> None:
    embedded = CONFIG.partition("amqtt:")[0] + 'auth: [{{file: "{directory}/users.txt"}}]\n'
    (directory / "broker.yaml").write_text(embedded.format(directory=directory, port=0))
    with running(directory) as broker:
        assert broker.log_in() == connack(0)
        passwd = [*COMMAND[:-1], "passwd", str(directory / "users.txt"), "user"]
        subprocess.run(passwd, input=b"changed\n", capture_output=True, timeout=30, check=True)
        broker.signal(signal.SIGHUP)
        broker.line("reloaded")
        assert broker.log_in() == connack(5)
        assert broker.log_in("changed") == connack(0)
        (directory / "users.txt").write_text("nonsense\n")
        broker.signal(signal.SIGHUP)
        broker.line("reload refused, the old configuration stays: broker.yaml:5: auth: ")
        assert broker.log_in("changed") == connack(0)


def test_a_login_a_reload_and_an_end(directory: Path) -> None:
    with running(directory) as broker:
        assert broker.log_in() == connack(0)
        assert broker.log_in("wrong") == connack(5)
        broker.line("refused client=192.0.2.1:12345 reason=bad-credentials listener=tcp")

        # All or nothing: a bad file changes nothing, nor does a key that needs a restart.
        (directory / "users.txt").write_text(f"user:{QUICK.hash('changed')}\n")
        configure(directory, more="limits: {max_sessions: x}\n")
        broker.signal(signal.SIGHUP)
        broker.line(
            "reload refused, the old configuration stays: broker.yaml:8: limits.max_sessions: must be"
        )
        configure(directory, port=5)
        broker.signal(signal.SIGHUP)
        broker.line(
            "reload refused, the old configuration stays: broker.yaml:2: listeners.tcp.bind: has changed"
        )
        assert broker.log_in("changed") == connack(5)

        # A new password, a deny and JSON lines; a session that the deny forbids ends.
        configure(directory, more="log: {format: json}\n")
        config = (directory / "broker.yaml").read_text()
        (directory / "broker.yaml").write_text(
            config.replace("trusted: [127.0.0.1]", "trusted: [127.0.0.1], deny: [192.0.2.7]")
        )
        with broker.connection("right", ("192.0.2.7", 7)) as forbidden:
            assert answer(forbidden) == connack(0)
            broker.signal(signal.SIGHUP)
            assert answer(forbidden) == b""
        broker.line("reloaded changed=")
        assert broker.log_in("changed") == connack(0)
        assert broker.log_in("changed", ("192.0.2.7", 8)) == b""

        # logrotate
        (directory / "audit.log").rename(directory / "audit.log.1")
        broker.signal(signal.SIGHUP)
        broker.line('"message": "reloaded changed=nothing"')
        with broker.connection("changed", ("192.0.2.1", 9)) as open_session:
            assert answer(open_session) == connack(0)
            broker.signal(signal.SIGTERM)
            assert answer(open_session) == b""
        assert broker.wait() == 0
    events = [json.loads(line)["event"] for line in (directory / "audit.log").read_text().splitlines()]
    assert events[-3:] == ["broker.stopping", "client.disconnected", "connection.refused"]
    before = [json.loads(line)["event"] for line in (directory / "audit.log.1").read_text().splitlines()]
    assert before[0] == "broker.started"
    assert before.count("config.rejected") == 2
    assert before.count("config.reloaded") == 1


def test_the_second_of_two_brokers_on_a_port_leaves_the_first_alone(directory: Path) -> None:
    with running(directory) as broker:
        configure(directory, port=broker.port)
        (directory / "broker.db").rename(directory / "other.db")
        assert run(directory, "--config", "broker.yaml").returncode == 2
        assert broker.log_in() == connack(0)
        broker.signal(signal.SIGINT)
        assert broker.wait() == 0
