"""A consumer that takes nothing, or is stopped: the kernel's queue fills, our memory does not."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peers import CLIENT, V2, Peer, until
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).with_name("server.py")


def waiting_in_the_kernel(listener: Listener) -> int:
    """Return how many connections the kernel holds for the listening socket: tcpi_unacked of TCP_INFO in tcp(7)."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    unacked: int = struct.unpack_from("I", info, 24)[0]
    return unacked


def test_what_is_not_taken_stays_in_the_kernel() -> None:
    backlog, clients = 64, 100
    with (
        Listener("127.0.0.1", 0, backlog=backlog, trusted=["127.0.0.0/8"], header_timeout=0.2) as listener,
        contextlib.ExitStack() as peers,
    ):
        for number in range(clients):
            peers.enter_context(Peer(listener.getsockname(), V2, number.to_bytes(1, "big")))
        until(lambda: waiting_in_the_kernel(listener) == clients - backlog)
        assert (listener.stats().ready, listener.stats().pending) == (backlog, 0)
        wait_longer_than_the_deadline()
        assert waiting_in_the_kernel(listener) == clients - backlog
        for number in range(clients):
            sock, address = listener.accept()
            with sock:
                assert (address, sock.recv(1)) == (CLIENT, number.to_bytes(1, "big"))
        assert listener.stats()["v2"] == clients


def test_a_stopped_process() -> None:
    """Connections that arrive while the process is stopped are served when it goes on, however late, and fill no memory."""
    clients = 40
    with running_server() as (pid, address), contextlib.ExitStack() as peers:
        with Peer(address, V2, b"warm") as peer:
            peer.end()
            assert peer.receive() == b"4"
        before = peak_memory(pid)
        os.kill(pid, signal.SIGSTOP)
        connected = [peers.enter_context(Peer(address, V2)) for _ in range(clients)]
        sent = [fill(peer) for peer in connected]
        wait_longer_than_the_deadline()
        os.kill(pid, signal.SIGCONT)
        for peer, count in zip(connected, sent, strict=True):
            peer.end()
            assert peer.receive() == str(count).encode()
        assert peak_memory(pid) - before < sum(sent) / 8


def wait_longer_than_the_deadline() -> None:
    """Wait until another listener's deadline has passed. It is three times as long and begins later."""
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], header_timeout=0.6, defer_accept=False) as listener,
        Peer(listener.getsockname()) as peer,
    ):
        assert peer.sees_the_end()


def fill(peer: Peer) -> int:
    """Send until the kernel takes no more. Return how many bytes it took."""
    sent = 0
    peer.sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += peer.sock.send(bytes(65536))
    peer.sock.setblocking(True)
    return sent


@contextlib.contextmanager
def running_server() -> Iterator[tuple[int, tuple[str, int]]]:
    arguments = [sys.executable, str(SERVER)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.pid, ("127.0.0.1", int(server.stdout.readline()))
            server.communicate()
            assert server.returncode == 0
        finally:
            server.kill()


def peak_memory(pid: int) -> int:
    """Return the most physical memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
