"""gunicorn's workers each make a Listener of the socket they share, with the configuration and application of the page."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from interop.clients import ANSWER, ask_in_http
from interop.pages import example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interop.certificates import Certificates

PAGE = "howto/web.md"


@contextlib.contextmanager
def running_gunicorn(directory: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run gunicorn on a socket of ours. It listens already, so the test need not wait for gunicorn."""
    trusted = {"10.0.0.0/8": "127.0.0.0/8"}
    (directory / "gunicorn.conf.py").write_text(example(PAGE, "gunicorn-conf", trusted))
    (directory / "app.py").write_text(example(PAGE, "gunicorn-app"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", "app:app", "--bind", f"fd://{fd}", "--no-control-socket"]
        process = subprocess.Popen(
            # A worker that gets the signal while it starts misses it. gunicorn would then wait 30 s.
            [*command, "--workers", "2", "--graceful-timeout", "2", *arguments],
            cwd=directory,
            pass_fds=[fd],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield listening.getsockname()
        finally:
            process.terminate()
            _, log = process.communicate()
            print(log)
    assert process.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_client_is_seen(worker: str, tmp_path: Path) -> None:
    with running_gunicorn(tmp_path, "--worker-class", worker) as address:
        assert [ask_in_http(address, None) for _ in range(3)] == [ANSWER] * 3


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_client_is_seen_with_tls(worker: str, tmp_path: Path, certs: Certificates) -> None:
    tls = ["--certfile", str(certs.server), "--keyfile", str(certs.server)]
    with running_gunicorn(tmp_path, "--worker-class", worker, *tls) as address:
        assert ask_in_http(address, certs.client_context()) == ANSWER
