"""A process with few descriptors: strangers without a header leave it enough for good clients and for its own files."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from peers import V2, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 256

SERVER = f"""
import logging, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
from proxyproto_rs import Listener

options = {{"trusted": ["127.0.0.1"], "header_timeout": 3600}}
listeners = [Listener("127.0.0.1", 0, **options) for _ in range(int(sys.argv[1]))]
print(*(listener.getsockname()[1] for listener in listeners), flush=True)
for command in sys.stdin:
    match command.split():
        case ["accept"]:
            with listeners[0].accept()[0] as sock:
                sock.sendall(b"served")
            print("accepted", flush=True)
        case ["open"]:
            with open("/dev/null"):
                print("opened", flush=True)
        case ["numbers"]:
            stats = listeners[0].stats()
            print(stats.max_pending, listeners[0].options["max_pending"], stats.pauses, flush=True)
"""


class Server:
    def __init__(self, listeners: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(listeners)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.addresses = [("127.0.0.1", int(port)) for port in self._process.stdout.readline().split()]

    def ask(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> str:
        """End it; return what it has logged."""
        return self._process.communicate()[1]


@pytest.fixture(params=[1, 3], ids=["one listener", "three listeners"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param)
    yield server
    server.end()


def test_strangers_leave_descriptors_for_others(server: Server) -> None:
    peers = []
    try:
        for address in server.addresses:
            for _ in range(LIMIT + 50):
                peers.append(Peer(address, b"P"))
        with Peer(server.addresses[0], V2) as good:
            assert server.ask("accept") == "accepted"
            assert good.receive() == b"served"
        assert server.ask("open") == "opened"
    finally:
        for peer in peers:
            peer.sock.close()


def test_what_is_in_force_is_shown_and_lowering_it_is_said_once(server: Server) -> None:
    most, option, _ = map(int, server.ask("numbers").split())
    assert 0 < most == option <= LIMIT // 2 // len(server.addresses)
    lines = [line for line in server.end().splitlines() if "wait for their header" in line]
    assert len(lines) == 1
    assert f"this process may have {LIMIT} open files" in lines[0]
