"""Sockets that systemd passes (sd_listen_fds(3)): which fd a name means, and the errors where it means none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from peers import V2

# Fd 3 is systemd's first. In the test process it belongs to somebody else. So this runs in a process of its own, which
# does what systemd does before it executes the service.
PRELUDE = """
import errno, os, socket, sys
from proxyproto_rs import Listener

HEADER = {header!r}

def passed(names, count=None, pid=None):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names.split(":")]
    os.closerange(3, 3)
    for number, sock in enumerate(sockets, 3):
        os.dup2(sock.fileno(), 100 + number)
    addresses = [sock.getsockname() for sock in sockets]
    for sock in sockets:
        sock.close()
    for number in range(3, 3 + len(sockets)):
        os.dup2(100 + number, number, inheritable=True)
        os.close(100 + number)
    os.environ["LISTEN_PID"] = str(os.getpid() if pid is None else pid)
    os.environ["LISTEN_FDS"] = str(len(sockets)) if count is None else count
    os.environ["LISTEN_FDNAMES"] = names
    return addresses

def serves(listener, address):
    assert listener.getsockname() == address, (listener, address)
    with socket.create_connection(address) as sock:
        sock.sendall(HEADER)
        conn, client = listener.accept()
        conn.close()
        assert client == ("192.0.2.1", 51724), client

def error_of(kind, *arguments):
    try:
        Listener.from_systemd(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError("no " + kind.__name__)
"""

CASES = {
    "the only one needs no name": """
        (address,) = passed("web")
        with Listener.from_systemd(trusted=["127.0.0.1"]) as listener:
            serves(listener, address)
    """,
    "one of several by its name": """
        web, mqtt = passed("web:mqtt")
        with Listener.from_systemd("mqtt", trusted=["127.0.0.1"]) as listener:
            serves(listener, mqtt)
        with Listener.from_systemd("web", trusted=["127.0.0.1"]) as listener:
            serves(listener, web)
    """,
    "again after it was closed": """
        (address,) = passed("web")
        for _ in range(2):
            with Listener.from_systemd("web", trusted=["127.0.0.1"]) as listener:
                serves(listener, address)
    """,
    "is not inherited": """
        passed("web")
        with Listener.from_systemd(trusted=["127.0.0.1"]):
            assert not os.get_inheritable(3)
    """,
    "several need a name": """
        passed("web:mqtt")
        assert "web, mqtt" in error_of(ValueError)
    """,
    "an unknown name": """
        passed("web:mqtt")
        assert "'smtp'" in error_of(ValueError, "smtp")
    """,
    "a name that two have": """
        passed("web:web")
        assert "2 sockets have the name 'web'" in error_of(ValueError, "web")
    """,
    "without names": """
        (address,) = passed("web")
        del os.environ["LISTEN_FDNAMES"]
        with Listener.from_systemd("unknown", trusted=["127.0.0.1"]) as listener:
            serves(listener, address)
    """,
    "nothing was passed": """
        assert "LISTEN_PID" in error_of(RuntimeError)
    """,
    "passed to another process": """
        passed("web", pid=1)
        assert "LISTEN_PID" in error_of(RuntimeError)
    """,
    "a number that is none": """
        passed("web", count="1_0")
        assert "1_0" in error_of(RuntimeError)
    """,
    "not a listening socket": """
        passed("web")
        with socket.socket() as sock:
            os.dup2(sock.fileno(), 3)
        assert "listening" in error_of(OSError)
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_sockets_of_systemd(case: str) -> None:
    program = PRELUDE.format(header=V2) + textwrap.dedent(CASES[case])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stderr
