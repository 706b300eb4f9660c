"""`proxyproto-rs passwd`: users come, change and go; what cannot be is said; nothing of the file is lost."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from proxyproto_rs.mqtt.policy.password_file import set_password
from proxyproto_rs.mqtt.policy.password_table import read_passwords

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "proxyproto_rs.cli", "passwd"]
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OTHERS = f"# Of the greenhouse.\r\n\nother:{QUICK.hash('theirs')}\n"


def run(*arguments: str | Path, typed: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], input=typed, capture_output=True, timeout=30, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "users.txt"
    file.write_text(OTHERS, newline="")
    file.chmod(0o640)
    return file


def content(file: Path) -> str:
    return file.read_bytes().decode()


def test_a_user_comes_changes_and_goes(file: Path) -> None:
    assert run(file, "dev", typed=b"first\nrest") == (0, "added dev\n", "")
    assert content(file).startswith(OTHERS)
    assert read_passwords(file).verify("dev", "first")
    assert run(file, "dev", typed=b"second") == (0, "changed dev\n", "")
    table = read_passwords(file)
    assert (table.verify("dev", "first"), table.verify("dev", "second")) == (False, True)
    assert list(table.hashes) == ["other", "dev"]
    assert run(file, "dev", "--delete") == (0, "removed dev\n", "")
    assert content(file) == OTHERS
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(file.parent) == ["users.txt"]


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new.txt"
    assert run(file, "größe", typed="pässword\r\n".encode())[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_passwords(file).verify("größe", "pässword")


def test_a_last_line_without_an_end_stays_a_line(file: Path) -> None:
    file.write_text(f"other:{QUICK.hash('theirs')}")
    assert run(file, "dev", typed=b"x\n")[0] == 0
    assert list(read_passwords(file).hashes) == ["other", "dev"]


def test_a_user_who_stands_there_twice_stands_there_once(file: Path) -> None:
    twice = f"dev:{QUICK.hash('a')}\n" * 2
    file.write_text(twice + OTHERS, newline="")
    assert run(file, "dev", typed=b"x\n") == (0, "changed dev\n", "")
    assert list(read_passwords(file).hashes) == ["dev", "other"]


def test_a_comment_is_no_user(file: Path) -> None:
    file.write_text("# dev:hash\n")
    assert run(file, "dev", "--delete")[0] == 1
    assert content(file) == "# dev:hash\n"


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert run(link, "dev", typed=b"x\n")[0] == 0
    assert link.is_symlink()
    assert "dev" in read_passwords(file).hashes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, 1234, 1235)
    assert run(file, "dev", typed=b"x\n")[0] == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1235)


NAMES = ["", "a:b", "a\nb", "a\rb", "a\u2028b", "#a", " a", "a\x1b[2J"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_no_line_can_hold_is_refused(name: str, file: Path) -> None:
    status, out, err = run(file, name, typed=b"x\n")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("proxyproto-rs passwd: a user name must ")
    assert line.isprintable()
    assert content(file) == OTHERS


PASSWORDS = [
    (b"", "the password is empty"),
    (b"\n", "the password is empty"),
    (b"\xff\n", "the password is not UTF-8 text"),
    (b"x" * 65536, "the password is longer than the 65535 bytes that MQTT can carry"),
]


@pytest.mark.parametrize(("typed", "told"), PASSWORDS, ids=["nothing", "empty", "latin-1", "long"])
def test_what_is_no_password_is_refused(typed: bytes, told: str, file: Path) -> None:
    assert run(file, "dev", typed=typed) == (2, "", f"proxyproto-rs passwd: {told}\n")
    assert content(file) == OTHERS


def test_files_that_cannot_be_used_are_told(file: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "users.txt"
    for arguments, told in (
        ((nowhere, "dev"), f"{nowhere}: cannot be changed: No such file or directory"),
        (
            (tmp_path / "none", "dev", "--delete"),
            f"{tmp_path}/none: cannot be changed: No such file or directory",
        ),
        ((tmp_path, "dev"), f"{tmp_path}: cannot be changed: Is a directory"),
    ):
        assert run(*arguments, typed=b"x\n") == (2, "", f"proxyproto-rs passwd: {told}\n")
    file.write_bytes(b"\xff\n")
    told = f"proxyproto-rs passwd: {file}: is not UTF-8 text (byte 0)\n"
    assert run(file, "dev", typed=b"x\n") == (2, "", told)
    assert run(file, "nobody", "--delete") == (2, "", told)


def test_a_user_whom_the_file_does_not_have_is_told(file: Path) -> None:
    assert run(file, "dev", "--delete") == (1, "", f"proxyproto-rs passwd: {file} has no user 'dev'\n")
    assert content(file) == OTHERS


def test_of_changes_at_the_same_time_none_is_lost(file: Path) -> None:
    names = [f"dev-{number}" for number in range(4)]
    started = []
    for name in names:
        process = subprocess.Popen(
            [*COMMAND, str(file), name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stdin is not None
        process.stdin.write(b"x\n")
        started.append(process)
    for process in started:
        process.communicate(timeout=30)
    assert sorted(read_passwords(file).hashes) == [*names, "other"]


def test_what_fails_half_way_leaves_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"users\.txt: cannot be changed: No space left on device"):
        set_password(file, "dev", "x")
    assert content(file) == OTHERS
    assert os.listdir(file.parent) == ["users.txt"]


def on_a_terminal(file: Path, *typed: bytes) -> tuple[int, bytes]:
    """Type lines, each when it is asked for. Return the status, and all that the terminal has shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], [*COMMAND, str(file), "dev"])
    shown = b""
    lines = list(typed)
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
            if chunk.endswith(b": ") and lines:
                os.write(terminal, lines.pop(0) + b"\n")
    except OSError:  # EIO: the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_a_terminal_asks_twice_and_shows_nothing(file: Path) -> None:
    status, shown = on_a_terminal(file, b"secret", b"secret")
    assert (status, shown.split()) == (0, [b"Password:", b"Again:", b"added", b"dev"])
    assert read_passwords(file).verify("dev", "secret")


def test_two_passwords_that_differ_change_nothing(file: Path) -> None:
    status, shown = on_a_terminal(file, b"secret", b"secert")
    assert status == 2
    assert b"proxyproto-rs passwd: the two passwords differ" in shown
    assert content(file) == OTHERS
