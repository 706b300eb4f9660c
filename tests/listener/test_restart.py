"""Draining, and restarts under load that lose no connection: a client counts."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, V1, V2, Peer, connected, is_refused, until, wait_readable
from proxyproto_rs import Listener

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

SERVER = Path(__file__).with_name("restarting_server.py")
ROUNDS = 3
LOADERS = 4
TRUSTED: dict[str, Any] = {"trusted": ["127.0.0.0/8"]}


def test_what_is_ready_or_has_begun_is_delivered_then_it_is_closed() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED) as listener:
        address = listener.getsockname()
        with Peer(address, V2), Peer(address, V1[:20]) as late:
            until(lambda: (listener.stats().ready, listener.stats().pending) == (1, 1))
            listener.drain()
            listener.accept()[0].close()
            late.send(V1[20:])
            sock, client = listener.accept()
            sock.close()
            assert client == CLIENT
        with pytest.raises(OSError, match="closed") as caught:
            listener.accept()
        assert caught.value.errno == errno.EBADF


def test_a_drain_waits_for_clients_that_have_connected_and_not_said_anything_yet() -> None:
    """The kernel defers their accept, and would reset them when the socket closes."""
    with Listener("127.0.0.1", 0, **TRUSTED) as listener:
        with contextlib.ExitStack() as stack:
            late = [stack.enter_context(Peer(listener.getsockname())) for _ in range(20)]
            listener.drain()
            for peer in late:
                # None has been reset so far.
                peer.send(V2)
            for _ in late:
                sock, client = listener.accept()
                sock.close()
                assert client == CLIENT
        with pytest.raises(OSError, match="closed"):
            listener.accept()


def test_a_drain_delivers_clients_whose_header_comes_after_the_sockets_end() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED) as listener, contextlib.ExitStack() as stack:
        late = [stack.enter_context(Peer(listener.getsockname())) for _ in range(20)]
        listener.drain()
        until(lambda: listener.stats().pending == len(late))
        until(lambda: is_refused(listener.getsockname()))
        for peer in late:
            peer.send(V2)
        for _ in late:
            listener.accept()[0].close()


def test_a_drained_listener_refuses_new_connections() -> None:
    with Listener("127.0.0.1", 0, **TRUSTED) as listener:
        address = listener.getsockname()
        listener.drain()
        assert wait_readable(listener.fileno())
        with pytest.raises(OSError, match="closed"):
            listener.try_accept()
        # The Listener keeps a duplicate of the kernel's socket; nobody serves it any more.
        assert listener.getsockname() == address


async def test_the_iteration_ends_with_the_last_connection() -> None:
    async with Listener("127.0.0.1", 0, **TRUSTED) as listener:
        with Peer(listener.getsockname(), V2):
            until(lambda: listener.stats().ready == 1)
            listener.drain()
            accepted = 0
            async for sock in listener:
                sock.close()
                accepted += 1
            assert accepted == 1


async def test_a_server_ends_with_the_last_connection() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    listener = Listener("127.0.0.1", 0, **TRUSTED)
    server = await listener.start_server(echo)
    async with connected(listener.getsockname(), V1) as (reader, writer):
        listener.drain()
        writer.write(b"ping")
        assert await reader.read() == b"ping"
        await server.wait_closed()
    assert not server.is_serving()


class Load:
    """Clients in a few threads, each of which connects again and again and counts how often it was served."""

    def __init__(self, address: Any) -> None:
        self._address = address
        self._ending = threading.Event()
        self.served = 0

    def run(self) -> int:
        served = 0
        while not self._ending.is_set():
            with Peer(self._address) as peer:
                # Every other header comes late, as an AWS NLB sends it: with the client's first data.
                self._ending.wait(0.03 * (served % 2))
                peer.send(V1, b"ping")
                received = peer.receive()
            if received != b"ping":
                raise AssertionError(f"connection {served} was lost: {received!r}")
            served += 1
            self.served += 1
        return served

    def end(self) -> None:
        self._ending.set()


def restart_under_load(address: Any, start: Callable[[], subprocess.Popen[str]]) -> int:
    """Replace the server while clients come and go; return how many were served."""
    load = Load(address)
    server = start()
    with ThreadPoolExecutor(LOADERS) as pool:
        loaders = [pool.submit(load.run) for _ in range(LOADERS)]
        try:
            for _ in range(ROUNDS):
                goal = load.served + 200
                until(lambda goal=goal: load.served >= goal or any(loader.done() for loader in loaders))  # type: ignore[misc]
                successor = start()
                server.terminate()
                assert server.wait() == 0
                server = successor
        finally:
            load.end()
        served = sum(loader.result() for loader in loaders)
    server.terminate()
    assert server.wait() == 0
    return served


def start_server(*arguments: str, **keywords: Any) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", str(SERVER), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **keywords,
    )
    assert server.stdout is not None
    with server.stdout as output:
        assert output.readline() == "ready\n"
    return server


def test_a_restart_with_an_adopted_socket_loses_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        fd = listening.fileno()
        served = restart_under_load(
            listening.getsockname(), lambda: start_server("fd", str(fd), pass_fds=[fd])
        )
    assert served > ROUNDS * 200


def test_a_restart_with_a_socket_of_systemds_loses_nothing() -> None:
    # systemd passes its sockets from fd 3 on, and says so to the process it becomes.
    shell = 'exec 3<&"$1"; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=app.socket exec "${@:2}"'
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        fd = listening.fileno()

        def start() -> subprocess.Popen[str]:
            server = subprocess.Popen(
                ["bash", "-c", shell, "-", str(fd), sys.executable, "-X", "dev", str(SERVER), "systemd"],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[fd],
            )
            assert server.stdout is not None
            with server.stdout as output:
                assert output.readline() == "ready\n"
            return server

        assert restart_under_load(listening.getsockname(), start) > ROUNDS * 200


def test_a_restart_with_a_shared_port_loses_nothing() -> None:
    """Each process has its own queue. The kernel migrates it only if a setting says so, so this test needs a namespace."""
    if os.environ.get("PROXYPROTO_TEST_NAMESPACE") != "1":
        _run_in_a_namespace()
        return
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holding.bind(("127.0.0.1", 0))
        address = holding.getsockname()
        served = restart_under_load(address, lambda: start_server("port", str(address[1])))
    assert served > ROUNDS * 200


def _run_in_a_namespace() -> None:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("a network namespace takes root, unshare and ip")
    test = f"{__file__}::test_a_restart_with_a_shared_port_loses_nothing"
    prepare = "ip link set lo up && echo 1 > /proc/sys/net/ipv4/tcp_migrate_req"
    command = [
        "unshare",
        "--net",
        "--mount-proc",
        "--fork",
        "--pid",
        "bash",
        "-c",
        f'{prepare} && exec "$@"',
        "-",
    ]
    run = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, "PROXYPROTO_TEST_NAMESPACE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
