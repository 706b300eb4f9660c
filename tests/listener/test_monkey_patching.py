"""gevent's monkey.patch_all(), before the package is imported or after: waiting is cooperative, and nothing is missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

IMPORT = "from proxyproto_rs import Listener, ProxiedSocket"
PATCH = "from gevent import monkey; monkey.patch_all()"
ORDERS = {"before": [PATCH, IMPORT], "after": [IMPORT, PATCH]}

PROGRAM = """
    import gevent, select, socket
    from gevent.server import StreamServer

    HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 51724 443\\r\\n"
    assert not hasattr(select, "epoll")
    turns = []

    def turn():
        while True:
            turns.append(1)
            gevent.sleep(0)

    def talk(address):
        with socket.create_connection(address) as peer:
            peer.sendall(HEADER + b"ping")
            return peer.recv(4)

    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        assert "laddr=" in repr(listener) and listener.fileno() >= 0
        turning = gevent.spawn(turn)
        talking = gevent.spawn_later(0.01, talk, listener.getsockname())
        conn, client = listener.accept()
        assert turns, "others had no turn while it waited"
        with conn:
            assert isinstance(conn, ProxiedSocket)
            assert client == conn.getpeername() == ("192.0.2.1", 51724)
            assert conn.recv(4) == b"ping"
            conn.sendall(b"pong")
        assert talking.get() == b"pong"
        listener.settimeout(0.01)
        try:
            listener.accept()
        except TimeoutError:
            pass
        else:
            raise AssertionError("nobody has connected")
        assert listener.stats().open == 0
        turning.kill()
    with Listener.adopt(socket.create_server(("127.0.0.1", 0)), trusted=[]) as adopted:
        assert adopted.getsockname()[1]
"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_listener_works(order: str) -> None:
    program = "\n".join([*ORDERS[order], textwrap.dedent(PROGRAM)])
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
