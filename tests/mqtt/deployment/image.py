"""The Dockerfile, line by line, and a process as its container runs it: process 1, not root, with nothing to write to."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .units import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = ROOT / "Dockerfile"
STATE = "/var/lib/proxyproto-rs"
CONFIGURATION = "/etc/proxyproto-rs/broker.yaml"

# What a container's runtime does, in namespaces of its own: a root that is read-only, a volume for the state, another
# user, and then the command as process 1. That user may read what pytest's user may, as everything in an image.
_CONTAINER = """
set -eu
state=$1 user=$2 group=$3; shift 3
mount -o remount,bind,ro /
mount -t tmpfs -o "uid=$user,gid=$group,mode=0700" tmpfs "$state"
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \\
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
"""


def instructions(stage: int = -1) -> list[tuple[str, str]]:
    """The instructions of a stage, each with its arguments in one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    found: list[tuple[str, str]] = []
    stages: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found = []
            stages.append(found)
        found.append((name, " ".join(arguments.split())))
    return stages[stage]


def argument(name: str) -> str:
    """The arguments of the one instruction of this name in the last stage."""
    (found,) = [arguments for instruction, arguments in instructions() if instruction == name]
    return found


def command() -> list[str]:
    """What process 1 runs."""
    entry, rest = json.loads(argument("ENTRYPOINT")), json.loads(argument("CMD"))
    return [*entry, *rest]


def as_here(words: list[str], configuration: Path) -> list[str]:
    """The command with this machine's program, and the configuration of a test."""
    assert words[0] == "proxyproto-rs"
    replaced = [str(configuration) if word == CONFIGURATION else word for word in words[1:]]
    return [sys.executable, "-m", "proxyproto_rs.cli", *replaced]


@contextlib.contextmanager
def contained(configuration: str, files: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run the image's command without an image. `{state}` and `{files}` in the configuration are the two directories."""
    with tempfile.TemporaryDirectory(prefix="container-") as name:
        directory, state = Path(name), Path(name) / "state"
        directory.chmod(0o755)
        state.mkdir()
        for file, text in files.items():
            (directory / file).write_text(text)
        path = directory / "broker.yaml"
        path.write_text(configuration.format(state=state, files=directory))
        user, group = argument("USER").split(":")
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            [*namespaces, "sh", "-c", _CONTAINER, "sh", state, user, group, *as_here(command(), path)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STATE_DIRECTORY": str(state)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, path
        finally:
            process.kill()  # and with it process 1, by --kill-child
            assert process.stderr is not None
            print(process.stderr.read())
            process.stderr.close()
            process.wait()


def skip_without_namespaces() -> None:
    """Skip a test where no container can be imitated."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv are not installed: apt-get install util-linux")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "mount", "-o", "remount,bind,ro", "/"],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip("a container cannot be imitated: that takes root, and leave to make namespaces")
