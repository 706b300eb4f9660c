"""`proxyproto_rs.uvicorn`, and `proxyproto-rs uvicorn`, which is the same on the command line."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import uvicorn

import proxyproto_rs.uvicorn
from integrations.asking import Connection, get
from integrations.load import Load, ask_beside_a_busy_worker
from peers import CLIENT, V2, Peer, turn_until
from proxyproto_rs import Listener, cli
from proxyproto_rs.asgi import ProxyProtocolMiddleware
from proxyproto_rs.uvicorn import Config, Server
from proxyproto_rs.uvloop import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": message["type"] + ".complete"})
        return
    if scope["path"] == "/slow":
        open("slow").read()
    facts = scope["extensions"]["proxy_protocol"]
    body = f"{scope['client'][0]} {scope['scheme']} {facts['authority']} {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


class Program(NamedTuple):
    """The running command. Its socket is ours and listens already, so no test waits for the command."""

    process: subprocess.Popen[str]
    listening: socket.socket


@contextlib.contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Program]:
    (directory / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        command = [
            sys.executable,
            "-m",
            "proxyproto_rs.cli",
            "uvicorn",
            "--trusted",
            "127.0.0.0/8",
            "app:app",
        ]
        process = subprocess.Popen(
            [*command, "--fd", str(fd), "--log-level", "warning", *arguments],
            cwd=directory,
            pass_fds=[fd],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Program(process, listening)
        finally:
            process.terminate()
            _, log = process.communicate()
            print(log)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in log


KINDS = {"one": [], "asyncio": ["--loop", "asyncio"], "workers": ["--workers", "2"], "reload": ["--reload"]}


@pytest.mark.parametrize("arguments", KINDS.values(), ids=list(KINDS))
def test_the_command_serves_who_comes_through_a_proxy(arguments: list[str], tmp_path: Path) -> None:
    with running(tmp_path, *arguments) as program:
        answers = {get(program.listening).rpartition(" ")[0] for _ in range(4)}
    assert answers == {"192.0.2.1 https shop.example"}


both_loops_of_workers = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@both_loops_of_workers
def test_nobody_waits_behind_a_busy_worker(loop: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    with running(tmp_path, "--workers", "2", "--loop", loop) as program:
        ask_beside_a_busy_worker(program.listening, tmp_path / "slow")


@both_loops_of_workers
def test_restarts_of_workers_lose_nothing(loop: str, tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "2", "--loop", loop) as program:
        load = Load(program.listening)
        with load.running():
            load.wait_for_processes(2)
            for _ in range(3):
                program.process.send_signal(signal.SIGHUP)
                load.wait_for_processes(2)
        assert load.failures == []


def test_the_command_tells_in_its_log_who_was_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        running(tmp_path) as program,
        Peer(program.listening.getsockname(), b"GET / HTTP/1.1\r\n\r\n") as stranger,
    ):
        assert stranger.sees_the_end()
    assert "missing-header" in capsys.readouterr().out


def test_the_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        cli.main(["uvicorn", "--help"])
    assert status.value.code == 0
    assert "proxyproto-rs uvicorn --trusted 10.0.0.0/8 --host" in capsys.readouterr().out


MISTAKES = {
    "network": (["--trusted", "10.0.0.0/8, nonsense"], '"nonsense" is not an IPv4 or IPv6 address'),
    "limit": (["--max-connections", "0"], "max_connections must be at least 1"),
    "optional": (["--proxy-protocol", "optional"], 'trusted is needed with proxy_protocol="optional"'),
}


@pytest.mark.parametrize(("arguments", "text"), MISTAKES.values(), ids=list(MISTAKES))
def test_the_command_says_what_is_wrong_with_an_option(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["uvicorn", *arguments, "app:app"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("proxyproto-rs uvicorn: ")
    assert text in error


def test_other_commands_take_nothing_that_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        cli.main(["demo", "--reload"])
    assert status.value.code == 2
    assert "unrecognized arguments: --reload" in capsys.readouterr().err


def run_without(*modules: str) -> subprocess.CompletedProcess[str]:
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in modules)
    code = (
        f"import sys\n{hidden}from proxyproto_rs.cli import main\nsys.exit(main(['uvicorn', 'nothing:app']))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_needs_uvicorn_and_says_so() -> None:
    done = run_without("uvicorn")
    assert (done.returncode, done.stderr) == (1, "proxyproto-rs uvicorn needs uvicorn: pip install uvicorn\n")


def test_the_command_needs_nothing_of_the_brokers() -> None:
    done = run_without("amqtt", "pydantic", "re2", "aiohttp", "prometheus_client", "yaml")
    assert 'Could not import module "nothing"' in done.stderr


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Told(Server):
    """Tells when it begins to end."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.ends = asyncio.Event()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.ends.set()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(listener: Listener) -> AsyncIterator[Told]:
    server = Told(Config(answer, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await turn_until(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        await task


both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "proxyproto_rs.uvloop"])


@both_loops
async def test_a_connection_that_is_accepted_at_the_end_is_served(listener: Listener) -> None:
    """Fails with `uvicorn.Server`, which closes it."""
    with Peer(listener.getsockname(), V2) as peer:
        async with serving(listener) as server:
            await turn_until(lambda: len(server.server_state.connections) == 1)
            server.should_exit = True
            await server.ends.wait()
            assert await asyncio.to_thread(Connection(peer.sock).get) == "ok"


@both_loops
async def test_a_header_that_is_late_at_the_end_has_its_time(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2[:20]) as peer:
        async with serving(listener) as server:
            await turn_until(lambda: listener.stats().pending == 1)
            server.should_exit = True
            await server.ends.wait()
            peer.send(V2[20:])
            assert await asyncio.to_thread(Connection(peer.sock).get) == "ok"


@both_loops
async def test_who_says_nothing_holds_up_the_end_for_a_moment_only(listener: Listener) -> None:
    with Peer(listener.getsockname(), V2) as peer:
        async with serving(listener) as server:
            await turn_until(lambda: len(server.server_state.connections) == 1)
        assert peer.sees_the_end()


@pytest.mark.parametrize(("loop", "module"), [("auto", "proxyproto_rs.uvloop"), ("asyncio", "asyncio")])
def test_uvloop_is_ours(loop: Any, module: str) -> None:
    factory = Config(answer, loop=loop, log_config=None).get_loop_factory()
    assert factory is not None
    assert factory.__module__.startswith(module)


def test_uvicorn_itself_takes_our_loop_by_name(listener: Listener) -> None:
    """As ``uvicorn --loop`` gives it."""
    clients = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append((type(asyncio.get_running_loop()), scope["client"][0]))
        await answer(scope, receive, send)

    config = uvicorn.Config(
        app, loop="proxyproto_rs.uvloop:new_event_loop", log_config=None, lifespan="off", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with Peer(listener.getsockname(), V2) as peer:
            assert Connection(peer.sock).get() == "ok"
    finally:
        server.should_exit = True
        thread.join()
    assert clients == [(Loop, CLIENT[0])]


def test_the_middleware_is_the_outermost() -> None:
    config = Config(answer, log_config=None)
    config.load()
    assert isinstance(config.loaded_app, ProxyProtocolMiddleware)


def test_workers_need_the_name_of_the_application() -> None:
    with pytest.raises(SystemExit) as status:
        proxyproto_rs.uvicorn.run(answer, workers=2, log_config=None)
    assert status.value.code == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"truested": []}, "Did you mean 'trusted'"),
        ({"trusted": ["nonsense"]}, "is not an IPv4 or IPv6 address"),
    ],
)
def test_workers_do_not_start_with_a_wrong_option(
    options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, each worker ended with the error and was started again, for ever."""
    monkeypatch.setattr(proxyproto_rs.uvicorn, "Multiprocess", lambda *_, **__: pytest.fail("started"))
    caplog.set_level(logging.INFO)
    with pytest.raises((TypeError, ValueError), match=text):
        proxyproto_rs.uvicorn.run("app:app", workers=2, port=0, **options)
    assert not caplog.messages


def test_without_uvicorn_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.uvicorn")
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.uvicorn needs uvicorn: pip install uvicorn$"):
        importlib.import_module("proxyproto_rs.uvicorn")
