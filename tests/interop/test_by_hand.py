"""Runs the commands and the test modules of docs/howto/testing.md as the page has them."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from interop.pages import example, run_example
from interop.proxies import find_program
from interop.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxyproto_rs import Listener

PAGE, STDLIB = "howto/testing.md", "howto/stdlib.md"


@contextlib.contextmanager
def serving(listener: Listener, *names: str) -> Iterator[dict[str, str]]:
    """Serve with examples of the standard library. Yields the address to put into the page's commands."""
    with running(run_example(STDLIB, *names), "threads", listener, {}):
        host, port = listener.getsockname()
        yield {"127.0.0.1:8000": f"{host}:{port}"}


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = find_program("curl")
    return subprocess.run(
        [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_curl_sends_its_own_address(listener: Listener) -> None:
    with serving(listener, "http-server") as replacements:
        _, *arguments = shlex.split(example(PAGE, "curl", replacements))
        assert curl(*arguments).stdout == "127.0.0.1 None\n"


def test_curl_sends_the_address_it_is_told(listener: Listener) -> None:
    if "--haproxy-clientip" not in subprocess.check_output(
        [find_program("curl"), "--help", "all"], text=True
    ):
        pytest.skip("this curl has no --haproxy-clientip (8.2.0)")
    with serving(listener, "http-server") as replacements:
        _, *arguments = shlex.split(example(PAGE, "curl-clientip", replacements))
        assert curl(*arguments).stdout == "192.0.2.1 None\n"


def test_curl_without_a_header_is_told_nothing_and_the_log_everything(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(listener, "http-server") as replacements:
        failed = curl(f"http://{replacements['127.0.0.1:8000']}/")
    assert failed.stdout == ""
    assert "Empty reply from server" in failed.stderr or "Connection reset by peer" in failed.stderr
    assert "missing-header: 47 45 54 20" in caplog.text
    assert "is an HTTP request" in caplog.text


def test_bash_sends_a_header(listener: Listener) -> None:
    program = find_program("bash")
    with serving(listener, "threads"):
        host, port = listener.getsockname()
        script = example(PAGE, "bash", {"127.0.0.1/8000": f"{host}/{port}"})
        assert subprocess.check_output([program, "-c", script], text=True, timeout=10) == "192.0.2.1 None\n"


def test_python_sends_a_header(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(listener, "threads"):
        host, port = listener.getsockname()
        run_example(PAGE, "python", replacements={'"127.0.0.1", 8000': f'"{host}", {port}'})
    assert capsys.readouterr().out == "b'192.0.2.1 shop.example\\n'\n"


def test_a_header_is_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    run_example(PAGE, "decode")
    assert capsys.readouterr().out.startswith("<Header v2 PROXY INET/STREAM ('192.0.2.1', 51000)")


# Each test module of the page, and the other file that it needs. All test the server of the tutorial.
TEST_MODULES = {"test-server": None, "test-with-fixture": "conftest"}


@pytest.mark.parametrize(("name", "beside"), TEST_MODULES.items(), ids=list(TEST_MODULES))
def test_the_tests_of_the_page_pass(name: str, beside: str | None, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(example("tutorial.md", "server"))
    (tmp_path / "test_server.py").write_text(example(PAGE, name))
    if beside:
        (tmp_path / f"{beside}.py").write_text(example(PAGE, beside))
    options = ["-q", "-W", "error", "-p", "no:asyncio", "--rootdir", str(tmp_path), "-c", os.devnull]
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{example(PAGE, name).count('def test_')} passed" in ended.stdout
