"""gevent serves a client behind a proxy, with the program of docs/howto/stdlib.md, in a process that gevent has patched."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from interop.clients import ANSWER, ask_in_http
from interop.pages import example

if TYPE_CHECKING:
    from pathlib import Path

REPLACEMENTS = {
    '"0.0.0.0", 8000': '"127.0.0.1", 0',
    "10.0.0.0/8": "127.0.0.0/8",
    "    WSGIServer(listener": "    print(listener.getsockname()[1], flush=True)\n    WSGIServer(listener",
}


def test_client_is_seen(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(example("howto/stdlib.md", "gevent", REPLACEMENTS))
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            assert ask_in_http(("127.0.0.1", port), None) == ANSWER
        finally:
            server.terminate()
