"""Who is asked about a password before a login goes upstream, in which order, and what the answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from argon2 import PasswordHasher

from mqtt.auth_service import AuthService
from proxyproto_rs.mqtt.config import AuthConfig
from proxyproto_rs.mqtt.model.connection import Connection
from proxyproto_rs.mqtt.model.login import Connect
from proxyproto_rs.mqtt.model.reasons import Refuse
from proxyproto_rs.mqtt.policy import password_table
from proxyproto_rs.mqtt.policy.asking import Asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Login:
    connection: Connection
    connect: Connect
    username: str | None


def login(username: str | None = "u", password: bytes | None = b"right", client_id: str = "dev") -> Login:
    connection = Connection(
        session_id="s",
        listener="tcp",
        client=("192.0.2.10", 50123),
        proxy=None,
        destination=("198.51.100.1", 1883),
        header=None,
        address_source="peer",
    )
    return Login(connection, Connect(client_id, True, 60, None, username, password), username)


@contextlib.asynccontextmanager
async def asking(*auth: Any, patience: float = 1.0, at_once: int = 16) -> AsyncIterator[Asking]:
    sources = [AuthConfig.model_validate(one) for one in auth]
    opened = await Asking.open(sources, time.monotonic, patience, at_once)
    assert opened is not None
    try:
        yield opened
    finally:
        await opened.close()


async def refused(asked: Asking, who: Login) -> tuple[str, str]:
    with pytest.raises(Refuse) as caught:
        await asked.decide(who)
    return caught.value.reason, caught.value.detail


@pytest.fixture
def users(tmp_path: Path) -> str:
    file = tmp_path / "users.txt"
    file.write_text(f"u:{QUICK.hash('right')}\n")
    return str(file)


async def test_who_asks_the_servers_alone_asks_nobody_here() -> None:
    assert await Asking.open([AuthConfig(upstream=True)], time.monotonic, 1.0) is None


async def test_the_first_that_knows_the_user_decides(users: str) -> None:
    async with asking({"file": users}, "upstream") as asked:
        assert await asked.decide(login())
        assert await refused(asked, login(password=b"wrong")) == (
            "bad-credentials",
            "user name or password is wrong",
        )
        assert not await asked.decide(login("somebody")), "the server is asked"


async def test_nobody_knows_the_user(users: str) -> None:
    async with asking({"file": users}) as asked:
        assert (await refused(asked, login("somebody")))[0] == "bad-credentials"
        assert await refused(asked, login(None)) == ("bad-credentials", "nobody knows the user")
        assert await refused(asked, login(password=b"\xff")) == (
            "bad-credentials",
            "the password is not UTF-8",
        )


async def test_an_unknown_user_costs_the_last_file_a_check_too(
    users: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxyproto_rs.mqtt.policy.password_table import PasswordTable

    checked: list[str] = []
    verify = PasswordTable.verify

    def counted(table: PasswordTable, username: str, password: str) -> bool:
        checked.append(username)
        return verify(table, username, password)

    monkeypatch.setattr(PasswordTable, "verify", counted)
    async with asking({"file": users}) as asked:
        await refused(asked, login("somebody"))
    assert checked == ["somebody"]


async def test_anonymous_lets_in_who_gives_no_name() -> None:
    async with asking("anonymous") as asked:
        assert await asked.decide(login(None, None))
        assert (await refused(asked, login()))[0] == "bad-credentials"


async def answer_by_name(who: Login) -> bool | None:
    return {"good": True, "bad": False}.get(who.username or "")


def fails(who: Login) -> bool:
    raise RuntimeError(who.username)


def gives_text(_: Login) -> str:
    return "yes"


async def test_a_function_is_asked() -> None:
    async with asking({"plugin": f"{__name__}:answer_by_name"}, "anonymous") as asked:
        assert await asked.decide(login("good"))
        assert (await refused(asked, login("bad")))[0] == "bad-credentials"
        assert (await refused(asked, login("unknown")))[1] == "nobody knows the user"
    async with asking({"plugin": f"{__name__}:fails"}) as asked:
        reason, detail = await refused(asked, login())
        assert (reason, detail) == ("auth-error", f"{__name__}:fails failed: RuntimeError('u')")
    async with asking({"plugin": f"{__name__}:gives_text"}) as asked:
        assert (await refused(asked, login()))[0] == "auth-error"


async def test_a_web_service_is_asked_and_a_good_login_remembered() -> None:
    answers: dict[str, Any] = {
        "u": (204, None),
        "denied": (200, {"result": "deny"}),
        "forbidden": (403, None),
        "allowed": (200, {"result": "allow"}),
        "ignored": (200, {"result": "ignore"}),
        "odd": (200, ["allow"]),
        "broken": (500, None),
    }
    service = AuthService(answers)
    questions = service.questions
    async with service.serving() as url, asking({"http": {"url": url}}) as asked:
        assert await asked.decide(login())
        assert questions == [
            {
                "clientId": "dev",
                "username": "u",
                "password": "right",
                "ipAddress": "192.0.2.10",
                "port": 50123,
                "listener": "tcp",
                "mqttVersion": "MQTT_3_1_1",
            }
        ]
        assert await asked.decide(login())
        assert len(questions) == 1, "it was good a moment ago"
        assert await asked.decide(login(client_id="other"))
        assert await asked.decide(login(password=b"another"))
        assert len(questions) == 3
        assert await asked.decide(login("allowed"))
        for name in ("denied", "forbidden"):
            assert (await refused(asked, login(name)))[0] == "bad-credentials"
        assert (await refused(asked, login("ignored")))[1] == "nobody knows the user"
        for name in ("odd", "broken"):
            assert (await refused(asked, login(name)))[0] == "auth-error"


async def test_a_web_service_that_is_not_there_is_an_error() -> None:
    async with AuthService({}).serving() as url:
        pass
    async with asking({"http": {"url": url, "timeout": "5s"}}) as asked:
        reason, detail = await refused(asked, login())
        assert reason == "auth-error"
        assert detail.startswith(url)


class Held:
    """What a slow function tells, and waits for."""

    now: Held

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.end = asyncio.Event()


@pytest.fixture
async def held() -> Held:
    Held.now = Held()
    return Held.now


async def waits(_: Login) -> bool | None:
    Held.now.begun.set()
    await Held.now.end.wait()
    return None


async def waits_for_one(who: Login) -> bool | None:
    return await waits(who) if who.username == "slow" else True


@pytest.mark.parametrize(
    ("auth", "each"),
    [
        ([{"plugin": f"{__name__}:waits"}], 0.002),
        ([{"plugin": f"{__name__}:answer_by_name"}, {"plugin": f"{__name__}:waits"}], 0.001),
    ],
    ids=["one source", "two share the time"],
)
async def test_who_waits_too_long_for_a_turn_is_busy(auth: list[Any], each: float, held: Held) -> None:
    async with asking(*auth, patience=0.002, at_once=1) as asked:
        slow = asyncio.create_task(asked.decide(login("slow")))
        await held.begun.wait()
        expected = ("busy", f"the password was not checked within {each:g} s")
        assert await refused(asked, login("other")) == expected
        held.end.set()
        with pytest.raises(Refuse, match="nobody knows the user"):
            await slow


async def test_more_are_asked_at_once_after_a_change(held: Held) -> None:
    async with asking({"plugin": f"{__name__}:waits_for_one"}, at_once=1) as asked:
        slow = asyncio.create_task(asked.decide(login("slow")))
        await held.begun.wait()
        asked.change(8)
        assert await asked.decide(login("other"))
        held.end.set()
        with pytest.raises(Refuse, match="nobody knows the user"):
            await slow


async def test_closing_refuses_who_waits_for_a_turn(held: Held) -> None:
    async with asking({"plugin": f"{__name__}:waits"}, at_once=1) as asked:
        slow = asyncio.create_task(asked.decide(login("slow")))
        await held.begun.wait()
        other = asyncio.create_task(asked.decide(login("other")))
        await asyncio.sleep(0)
        await asked.close()
        with pytest.raises(Refuse, match="the broker stops"):
            await other
        slow.cancel()
        await asyncio.wait((slow,))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_table, "_REMEMBERED", 3)
    good = password_table.GoodLogins(60.0)
    for name in ("a", "b", "c", "a", "d"):
        good.remember(name, name.encode(), 0.0)
    assert [name for name in "abcd" if good.knows(name, name.encode(), 1.0)] == ["a", "c", "d"]


order: list[str] = []


async def in_order(who: Login) -> bool:
    order.append(who.connect.client_id)
    if who.username == "slow":
        await waits(who)
    return who.username != "guess"


async def test_who_has_logged_in_before_goes_before_strangers(held: Held) -> None:
    order.clear()
    async with asking({"plugin": f"{__name__}:in_order"}, at_once=1) as asked:
        assert await asked.decide(login("u", client_id="first"))
        others = [asyncio.create_task(asked.decide(login("slow", client_id="slow")))]
        await held.begun.wait()
        for number in range(3):
            others.append(asyncio.create_task(asked.decide(login("guess", client_id=f"guess-{number}"))))
        await asyncio.sleep(0)
        known = asyncio.create_task(asked.decide(login("u", client_id="again")))
        await asyncio.sleep(0)
        held.end.set()
        assert await known
        await asyncio.gather(*others, return_exceptions=True)
    assert order == ["first", "slow", "again", "guess-0", "guess-1", "guess-2"]
