"""A process that runs out of file descriptors says so, waits, and continues when there are some again."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from typing import TYPE_CHECKING

from peers import CLIENT, V2, until
from proxyproto_rs import Listener, ProxiedSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

LEFT = 8
CLIENTS = 60


def test_running_out_of_descriptors_and_recovering(caplog: pytest.LogCaptureFixture) -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        clients = [stack.enter_context(socket.socket()) for _ in range(CLIENTS)]
        served: list[ProxiedSocket] = []
        stack.callback(close_all, served)
        with only(LEFT):
            for client in clients:
                client.connect(address)
                client.sendall(V2)
            # Two pauses: it tries again, and another failure does not stop it.
            until(lambda: listener.stats().pauses >= 2)
            served += [listener.accept()[0] for _ in range(LEFT)]
            assert listener.stats()["v2"] == LEFT
            # Each connection that closes makes room for one, which is accepted at the next attempt.
            served.pop().close()
            served.append(listener.accept()[0])
            assert listener.stats()["v2"] == LEFT + 1
        served += [listener.accept()[0] for _ in range(CLIENTS - LEFT - 1)]
        assert {sock.getpeername() for sock in served} == {CLIENT}
        stats = listener.stats()
        assert (stats["v2"], stats.accepted, stats.refused) == (CLIENTS, CLIENTS, 0)
    lines = [record.getMessage() for record in caplog.records if "file" in record.getMessage()]
    assert len(lines) == 1


def test_a_listener_that_finds_too_few_descriptors_leaves_none() -> None:
    """A Listener takes about nine fds. Wherever it fails, it says why, and leaves nothing behind."""
    errors = []
    for left in range(16):
        with only(left):
            try:
                Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]).close()
            except OSError as error:
                errors.append(error.errno)
    assert set(errors) == {errno.EMFILE}
    assert len(errors) < 16


def close_all(served: list[ProxiedSocket]) -> None:
    for sock in served:
        sock.close()


@contextlib.contextmanager
def only(left: int) -> Iterator[None]:
    """Let this process open at most `left` more file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(left):
            os.close(fillers.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
