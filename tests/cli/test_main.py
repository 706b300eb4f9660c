"""What all verbs share: help with examples that the parser takes, completion in real shells, colours on terminals only."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interop.proxies import find_program
from proxyproto_rs.cli import VERBS, main, make_parser

COMMAND = str(Path(sys.executable).parent / "proxyproto-rs")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_that_the_parser_takes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "\nexamples:\n" in shown
    parser, modules = make_parser()
    lines = modules[verb].EXAMPLES.splitlines()
    assert lines
    for line in lines:
        assert f"  {line}" in shown
        assert f"proxyproto-rs {verb}" in line
        rest = line.partition("proxyproto-rs ")[2]
        words = shlex.split(rest.partition(")")[0].partition(" | ")[0], comments=True)
        parser.parse_known_args(words)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_code_of_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=code, text=True, check=True)


def completed(line: str) -> list[str]:
    """What bash offers at the end of a line, by the function that our code defines."""
    script = f"""
eval "$({shlex.quote(COMMAND)} completion bash)"
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_TYPE=9
COMP_WORDS=({line}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_python_argcomplete {shlex.quote(COMMAND)}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(
        [find_program("bash"), "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"},
    )
    return [word.strip() for word in run.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("proxyproto-rs ex", ["explain"]),
        ("proxyproto-rs explain missing", ["missing-header", "missing-field"]),
        ("proxyproto-rs completion f", ["fish"]),
        ("proxyproto-rs broker --che", ["--check"]),
    ],
)
def test_bash_completes(line: str, words: list[str]) -> None:
    pytest.importorskip("argcomplete")
    assert sorted(completed(line)) == sorted(words)


COMPLETED = [
    ("proxyproto-rs ex", "explain"),
    ("proxyproto-rs explain missing-h", "missing-header"),
    ("proxyproto-rs broker --che", "--check"),
]


def with_our_command() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}", "TERM": "dumb"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed: apt-get install fish")
@pytest.mark.parametrize(("line", "word"), COMPLETED)
def test_fish_completes(line: str, word: str) -> None:
    pytest.importorskip("argcomplete")
    script = f"{COMMAND} completion fish | source; complete -C {shlex.quote(line)}"
    run = subprocess.run(
        [find_program("fish"), "--no-config", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=with_our_command(),
    )
    assert [offered.split("\t")[0].strip() for offered in run.stdout.splitlines()] == [word]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed: apt-get install zsh")
@pytest.mark.parametrize(("line", "word"), COMPLETED)
def test_zsh_completes(line: str, word: str, tmp_path: Path) -> None:
    """zsh completes on a terminal only: this one presses Tab there."""
    pytest.importorskip("argcomplete")
    (tmp_path / ".zshrc").write_text(
        f"autoload -Uz compinit && compinit -u -d {tmp_path}/dump\n"
        f'eval "$({shlex.quote(COMMAND)} completion zsh)"\nPROMPT="ready> "\n'
    )
    controller, terminal = pty.openpty()
    variables = {**with_our_command(), "ZDOTDIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [find_program("zsh"), "--no-globalrcs", "-i"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=variables, start_new_session=True
    ) as shell:
        os.close(terminal)
        try:
            read_until(controller, "ready> ")
            os.write(controller, f"{line}\t".encode())
            read_until(controller, word)
        finally:
            shell.kill()
            os.close(controller)


def read_until(terminal: int, wanted: str) -> None:
    """Read what a terminal shows until it has shown some text. What never comes ends at the test's time limit."""
    shown = b""
    while wanted.encode() not in shown:
        shown += os.read(terminal, 1024)


def on_a_terminal(*arguments: str, **variables: str) -> bytes:
    """What a verb writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", **variables}
    with subprocess.Popen([COMMAND, *arguments], stdout=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # EIO: the other end is closed
            pass
        process.wait()
    os.close(ours)
    return written


def test_colours_are_for_terminals_only() -> None:
    assert b"\x1b[" in on_a_terminal("explain", "timeout")
    assert b"\x1b[" not in on_a_terminal("explain", "timeout", NO_COLOR="1")
    assert b"\x1b[" not in on_a_terminal("explain", "timeout", TERM="dumb")
    assert b"\x1b[" not in subprocess.check_output([COMMAND, "explain", "timeout"])


def test_a_reader_that_has_seen_enough_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        ended = subprocess.run([COMMAND, "explain"], stdout=closed, stderr=subprocess.PIPE, check=False)
    assert ended.stderr == b""
