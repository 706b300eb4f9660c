"""The interpreter exits cleanly, whatever a Listener is doing: no hang, no crash, no use of what is gone."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import asyncio, os, socket, sys, threading
from proxyproto_rs import Header, Listener

HEADER = Header.v2(("192.0.2.1", 1), ("198.51.100.2", 2)).encode()

def connect(*chunks):
    sock = socket.create_connection(listener.getsockname())
    for chunk in chunks:
        sock.sendall(chunk)
    return sock

def send_for_ever():
    # Ends with the process: connections, whole, partial and none, while the interpreter shuts down.
    while True:
        try:
            for data in (HEADER, HEADER[:20], b"GET /", b""):
                connect(data).close()
        except OSError:
            return

def traffic():
    thread = threading.Thread(target=send_for_ever, daemon=True)
    thread.start()

listener = Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=lambda refusal: None)
import logging; logging.disable()
"""

ENDINGS = {
    "live": "traffic(); listener.accept()[0].close()",
    "live-and-in-use": "traffic(); kept = [listener.accept()[0] for _ in range(10)]",
    "thread-in-accept": (
        "threading.Thread(target=listener.accept, daemon=True).start(); kept = connect(HEADER[:20])"
    ),
    "daemon-server": """
def serve():
    while True:
        listener.accept()[0].close()
threading.Thread(target=serve, daemon=True).start()
traffic()
kept = connect(HEADER); kept.recv(1)
""",
    "asyncio-server": """
async def main():
    async def cb(reader, writer):
        writer.close()
    server = await listener.start_server(cb)
    traffic()
    await asyncio.to_thread(lambda: connect(HEADER).recv(1))
asyncio.run(main())
""",
    "in-a-cycle": "listener.me = listener; traffic(); listener.accept()[0].close()",
    "sys-exit": "traffic(); listener.accept()[0].close(); sys.exit(0)",
    "exception-in-thread": "threading.Thread(target=lambda: sys.exit(3)).start(); traffic()",
    "closed": "traffic(); listener.accept()[0].close(); listener.close()",
    "closed-at-exit": "import atexit; atexit.register(listener.close); traffic(); listener.accept()[0].close()",
    "os-exit": "traffic(); listener.accept()[0].close(); os._exit(0)",
}

# Python warns of each object that is not closed, which is right. These texts mean a crash.
CRASHES = ("Fatal Python error", "panicked", "SystemError", "Segmentation", "RuntimeError", "AttributeError")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends(ending: str) -> None:
    run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + textwrap.dedent(ENDINGS[ending])], ending
    )


@pytest.mark.parametrize("ending", ["asyncio-server"])
def test_the_interpreter_ends_with_uvloop(ending: str) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    body = textwrap.dedent(ENDINGS[ending]).replace(
        "asyncio.run(main())",
        "import uvloop; loop = uvloop.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    )
    # Without -W error: a uvloop that is closed while connections are open warns.
    run([sys.executable, "-X", "dev", "-c", PRELUDE + body], ending)


def run(command: list[str], ending: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert not [crash for crash in CRASHES if crash in ended.stderr], ended.stderr
    if ending in ("closed", "closed-at-exit"):
        assert "Listener" not in ended.stderr
