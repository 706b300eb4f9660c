"""The commands of docs/reference/command-line.md print what the page shows under them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from interop.pages import example, read, run_example, text
from interop.proxies import find_program
from interop.running import running
from proxyproto_rs.cli import VERBS, main, make_parser

if TYPE_CHECKING:
    import pytest

    from proxyproto_rs import Listener

PAGE = "reference/command-line.md"


def words(name: str) -> list[str]:
    """The arguments of an example that is one command."""
    command, *arguments = shlex.split(example(PAGE, name))
    assert command == "proxyproto-rs"
    return arguments


def test_every_verb_is_in_the_table() -> None:
    cells = re.findall(r"^\| (\[?`.+?) \| ", read(PAGE).split("\n## ")[0], re.M)
    assert sorted(verb for cell in cells for verb in re.findall(r"`(\w+)`", cell)) == sorted(VERBS)


def test_decode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("decode")) == 1
    assert capsys.readouterr().out.rstrip() == text(PAGE, "decode")


def test_listen_shows_what_curl_sends() -> None:
    command = [sys.executable, "-m", "proxyproto_rs.cli", *words("listen")]
    command[command.index("8000")] = "127.0.0.1:0"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("Listening on ").partition(". ")[0]
        _, *arguments = shlex.split(example(PAGE, "listen-client", {"127.0.0.1:8000": address}))
        client = [find_program("curl"), "--silent", "--noproxy", "*", "--max-time", "30", *arguments]
        answer = subprocess.check_output(client, text=True)
        told, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    assert "A valid header of version 1" in told
    assert "A valid header of version 1" in answer
    assert "a real port: served as v1" in told


def test_probe(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    with running(run_example("howto/stdlib.md", "http-server"), "threads", listener, {}):
        host, port = listener.getsockname()
        command, *arguments = words("probe")
        assert main([command, *(word.replace("127.0.0.1:8000", f"{host}:{port}") for word in arguments)]) == 0
    out = capsys.readouterr().out.rstrip().replace(f"{host}:{port}", "127.0.0.1:8000")
    # Whether the server's end is a close or a reset depends on what it had not read.
    assert out.replace("closed without a word", "reset") == text(PAGE, "probe")


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("explain")) == 0
    assert capsys.readouterr().out.rstrip() == text(PAGE, "explain")


def test_completion_is_evaluated_as_the_help_says() -> None:
    _, modules = make_parser()
    shown = [re.sub(r" +#.*", "", line) for line in example(PAGE, "completion").splitlines()]
    assert shown == modules["completion"].EXAMPLES.splitlines()
