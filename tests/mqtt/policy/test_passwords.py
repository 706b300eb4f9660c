"""`PasswordFile`: amqtt's format, slow checks one by one in a thread, and a reload that is all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from amqtt.broker import Broker
from amqtt.plugins.authentication import FileAuthPlugin
from amqtt.session import Session
from argon2 import PasswordHasher

from proxyproto_rs.mqtt import ConfigError, PasswordFile
from proxyproto_rs.mqtt.model.reasons import Refuse
from proxyproto_rs.mqtt.policy.password_table import PasswordFileError, PasswordTable, read_passwords
from proxyproto_rs.mqtt.policy.passwords import reread_password_files

from ..peers import OTHER, WAIT, WELCOME, connect, dial, log_in, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""A hash that is only as strong as a test needs."""


class Counting:
    """Wraps a table's check, and counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checks: list[str] = []
        self.threads: set[str] = set()
        real = PasswordTable.verify

        def verify(table: PasswordTable, username: str, password: str) -> bool:
            self.checks.append(username)
            self.threads.add(threading.current_thread().name)
            return real(table, username, password)

        monkeypatch.setattr(PasswordTable, "verify", verify)


class Held:
    """Holds every check of a table until `end` is set. `begun` says that the first has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        self.end = threading.Event()
        loop, real = asyncio.get_running_loop(), PasswordTable.verify

        def verify(table: PasswordTable, username: str, password: str) -> bool:
            loop.call_soon_threadsafe(self.begun.set)
            assert self.end.wait(2 * WAIT)
            return real(table, username, password)

        monkeypatch.setattr(PasswordTable, "verify", verify)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.txt"
    path.write_text(f"# users\n\nu:{QUICK.hash('right')}\n  v:{QUICK.hash('other:colon')}\n")
    return path


@pytest.fixture
async def plugin(file: Path) -> AsyncIterator[PasswordFile]:
    opened = PasswordFile(password_file=file)
    yield opened
    await opened.close()


def write(file: Path, text: str) -> None:
    file.write_text(text)


LOGINS = [
    ("u", "right", True),
    ("u", "wrong", False),
    ("u", "", False),
    ("u", None, False),
    ("v", "other:colon", True),
    ("nobody", "right", False),
    ("# users", "x", False),
    (None, "right", None),
    ("", "right", None),
]


@pytest.mark.parametrize(("username", "password", "answer"), LOGINS)
async def test_logins(username: Any, password: Any, answer: bool | None, plugin: PasswordFile) -> None:
    session: Any = SimpleNamespace(username=username, password=password)
    assert await plugin.authenticate(session=session) is answer


async def test_a_good_login_is_remembered_and_a_bad_one_is_not(counting: Counting, file: Path) -> None:
    now = [0.0]
    plugin = PasswordFile(password_file=file, clock=lambda: now[0])
    for time, password, good in (
        (0, "right", True),
        (299, "right", True),
        (299, "wrong", False),
        (299, "right", True),
        (300, "right", True),
        (300, "wrong", False),
    ):
        now[0] = time
        assert await plugin.check("u", password) is good
    assert len(counting.checks) == 4
    await plugin.close()


async def test_a_storm_of_one_user_is_one_check(counting: Counting, plugin: PasswordFile) -> None:
    import asyncio

    assert await asyncio.gather(*(plugin.check("u", "right") for _ in range(100))) == [True] * 100
    assert len(counting.checks) == 1
    assert all(name.startswith("mqtt-passwords") for name in counting.threads)


async def test_a_remembered_login_waits_for_no_check(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    plugin = PasswordFile(password_file=file)
    assert await plugin.check("u", "right")
    held = Held(monkeypatch)
    wrong = [asyncio.create_task(plugin.check("u", f"wrong-{n}", address=f"192.0.2.{n}")) for n in range(3)]
    await held.begun.wait()
    assert await plugin.check("u", "right")
    with pytest.raises(Refuse, match="busy"):
        await plugin.check("v", "other:colon", patience=0.001)
    held.end.set()
    assert await asyncio.gather(*wrong) == [False] * 3
    await plugin.close()


async def test_an_unknown_user_costs_a_check_too(counting: Counting, plugin: PasswordFile) -> None:
    assert not await plugin.check("nobody", "right")
    assert not await plugin.check("nobody", "right")
    assert counting.checks == ["nobody", "nobody"]


def test_an_unknown_users_hash_is_as_slow_as_the_others(file: Path) -> None:
    table = read_passwords(file)
    assert table.unknown.split("$")[1:4] == table.hashes["u"].split("$")[1:4]


async def test_a_reload_takes_new_passwords_and_forgets_old_ones(file: Path, plugin: PasswordFile) -> None:
    assert await plugin.check("u", "right")
    write(file, f"u:{QUICK.hash('changed')}\nw:{QUICK.hash('new')}\n")
    uses = reread_password_files()
    assert not await plugin.check("w", "new"), "nothing is in force before it is said"
    for use in uses:
        use()
    assert not await plugin.check("u", "right"), "the memory of good logins goes with the password"
    assert await plugin.check("u", "changed")
    assert await plugin.check("w", "new")
    assert not await plugin.check("v", "other:colon")


async def test_a_bad_file_changes_nothing(file: Path, plugin: PasswordFile) -> None:
    write(file, "nonsense\n")
    with pytest.raises(
        ConfigError, match=r"amqtt\.plugins\.proxyproto_rs\.mqtt\.PasswordFile: .*:1: must be name:hash"
    ):
        reread_password_files()
    assert await plugin.check("u", "right")


BAD = [
    ("no-colon", b"abc\n", ":1: must be name:hash"),
    ("no-name", b"\n:hash\n", ":2: must be name:hash"),
    (
        "twice",
        f"u:{QUICK.hash('a')}\nu:{QUICK.hash('b')}\n".encode(),
        ":2: user 'u' stands at line 1 already",
    ),
    ("plain", b"u:secret\n", ":1: the hash of user 'u' is neither argon2 nor sha512_crypt"),
    ("bcrypt", b"u:$2b$12$abc\n", ":1: the hash of user 'u' is neither argon2 nor sha512_crypt"),
    ("not-utf-8", b"u:\xff\n", ": is not UTF-8 text (byte 2)"),
    ("missing", None, ": cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_file_that_cannot_be_used_is_one_line_without_a_secret(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "users.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PasswordFileError) as caught:
        PasswordFile(password_file=path)
    assert str(caught.value) == f"{path}{said}"
    assert "secret" not in str(caught.value)


OLD = "$6$rounds=1000$saltsalt$"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 has no crypt")
async def test_amqtts_old_hashes_are_still_checked(tmp_path: Path) -> None:
    from proxyproto_rs.mqtt.policy.password_table import _crypt

    assert _crypt is not None
    path = tmp_path / "users.txt"
    path.write_text(f"u:{_crypt('right', OLD)}\n")
    plugin = PasswordFile(password_file=path)
    logins = (("u", "right"), ("u", "wrong"), ("u", "a\0b"), ("x", "right"))
    assert [await plugin.check(*login) for login in logins] == [True, False, False, False]
    await plugin.close()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has crypt")
def test_amqtts_old_hashes_are_refused_where_they_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_text(f"u:{OLD}x\n")
    with pytest.raises(PasswordFileError, match="is sha512_crypt, which this Python cannot check"):
        PasswordFile(password_file=path)


async def test_amqtt_loads_it_as_a_plugin_and_reads_the_same_file(file: Path) -> None:
    paths = ("proxyproto_rs.mqtt.PasswordFile", "amqtt.plugins.authentication.FileAuthPlugin")
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {path: {"password_file": str(file)} for path in paths},
        }
    )
    for username, password, _ in LOGINS[:6]:
        session = Session()
        session.username, session.password = username, password
        answers = await broker.plugins_manager.map_plugin_auth(session=session)
        ours, theirs = sorted(answers, key=lambda plugin: isinstance(plugin, FileAuthPlugin))
        assert answers[ours] == answers[theirs]
    await broker.plugins_manager.close()


async def test_by_hand_it_needs_a_file() -> None:
    with pytest.raises(TypeError, match="password_file is missing"):
        PasswordFile()


def with_file(file: Path) -> dict[str, Any]:
    return {"plugins": {"proxyproto_rs.mqtt.PasswordFile": {"password_file": str(file)}}}


async def test_a_storm_of_wrong_passwords_keeps_nobody_out_who_is_known(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    known = connect("known", username="u", password=b"right")
    patient = {"auth_timeout": "1h"}
    async with (
        running(amqtt=with_file(file), mqtt=patient) as broker,
        contextlib.AsyncExitStack() as stack,
    ):
        async with log_in(broker.address(), known) as client:
            assert client.connack == WELCOME
        held = Held(monkeypatch)
        stack.callback(held.end.set)
        for number in range(20):  # more than `logins_at_once`
            wrong = connect(f"w-{number}", username="u", password=f"wrong-{number}".encode()).encode()
            await stack.enter_async_context(dial(broker.address(), wrong, source=(f"192.0.2.{number}", 1)))
        await held.begun.wait()
        async with log_in(broker.address(), known) as client:
            assert client.connack == WELCOME


async def test_whose_password_is_not_checked_in_time_is_closed_as_busy(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    wrong = connect("wrong", username="u", password=b"wrong")
    async with running(amqtt=with_file(file), mqtt={"auth_timeout": "400ms"}) as broker:
        held = Held(monkeypatch)
        async with dial(broker.address(), wrong.encode()):
            await held.begun.wait()
            good = connect("good", username="u", password=b"right")
            async with log_in(broker.address(), good, source=OTHER) as second:
                assert second.connack == b""
            assert broker.service.metrics.connects["tcp", "busy"] == 1
            held.end.set()
