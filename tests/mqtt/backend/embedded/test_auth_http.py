"""A web service that knows the users of the embedded broker: what clients are told, and what they wait for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.auth_service import AuthService
from mqtt.peers import (
    CLIENT,
    OTHER,
    WELCOME,
    connack,
    connect,
    connect_of,
    dial,
    log_in,
    publish,
    running,
    subscribe,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mqtt.peers import Broker, Client

SECRET = b"the-secret-of-dev"
ANSWERS: dict[str, tuple[int, Any]] = {
    "good": (204, None),
    "late": (204, None),
    "denied": (200, {"result": "deny"}),
    "forbidden": (403, None),
    "unknown": (200, {"result": "ignore"}),
    "odd": (200, ["allow"]),
    "broken": (500, None),
}


@contextlib.asynccontextmanager
async def asking(service: AuthService, patience: str = "5s") -> AsyncIterator[Broker]:
    """An embedded broker that asks the service."""
    auth = [{"http": {"url": service.url, "timeout": patience}}]
    async with running(backend={"embedded": {}}, auth=auth, amqtt={}) as broker:
        yield broker


def entering(broker: Broker, username: str, number: int = 1, source: tuple[str, int] = CLIENT) -> Any:
    how = connect(f"{username}-{number}", username=username, password=SECRET)
    return log_in(broker.address(), how, source=source)


async def works(client: Client) -> bool:
    """Whether the client's messages come back to it."""
    await client.ask(subscribe("a"))
    client.send(publish("a", b"there"))
    return (await client.message()).payload == b"there"


@pytest.mark.parametrize(
    ("username", "code", "code_of_5", "reason"),
    [
        ("denied", 5, 0x86, "bad-credentials"),
        ("forbidden", 5, 0x86, "bad-credentials"),
        ("unknown", 5, 0x86, "bad-credentials"),
        ("odd", 3, 0x88, "auth-error"),
        ("broken", 3, 0x88, "auth-error"),
    ],
)
async def test_who_is_not_let_in_is_told_why(
    username: str, code: int, code_of_5: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = AuthService({**ANSWERS, "user": ANSWERS[username]})
    async with service.serving(), asking(service) as broker:
        async with entering(broker, username) as client:
            assert client.connack == connack(code)
            assert await client.end() == b""
        async with dial(broker.address(), connect_of("MQTT_5", password=SECRET)) as client:
            assert (await client.packet())[3] == code_of_5
        # The service has been told whom it is asked about, by their own address.
        question = service.questions[0]
        assert (question["ipAddress"], question["port"], question["listener"]) == (*CLIENT, "tcp")
        assert {row.reason_code for row in await broker.rows(2)} == {reason}
    assert SECRET.decode() not in caplog.text


async def test_the_service_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = AuthService(ANSWERS)
    async with service.serving():
        pass
    async with asking(service) as broker:
        async with entering(broker, "good") as client:
            assert client.connack == connack(3), "nobody is let in unasked"
        async with service.serving(), entering(broker, "good") as client:
            assert client.connack == WELCOME
            assert await works(client)
        async with entering(broker, "good") as client:
            assert client.connack == WELCOME, "it was good a moment ago"
        async with entering(broker, "late") as client:
            assert client.connack == connack(3)
        async with service.serving(), entering(broker, "late") as client:
            assert client.connack == WELCOME
    assert (service.asked_for("good"), service.asked_for("late")) == (1, 1)
    assert f"{service.url}" in caplog.text, "the log says who has not answered"
    assert SECRET.decode() not in caplog.text


async def test_a_slow_answer_holds_up_nobody_from_elsewhere() -> None:
    service = AuthService(ANSWERS, slow={"late": asyncio.Event()})

    async def come_late(number: int) -> bytes:
        async with entering(broker, "late", number) as client:
            return bytes(client.connack)

    async with service.serving(), asking(service) as broker:
        logins = [asyncio.create_task(come_late(number)) for number in range(8)]
        await broker.until(lambda: service.asked_for("late"))
        async with entering(broker, "good", source=OTHER) as client:
            assert client.connack == WELCOME
            assert await works(client)
        assert not any(login.done() for login in logins)
        service.slow["late"].set()
        assert await asyncio.gather(*logins) == [WELCOME] * 8


async def test_who_gets_no_answer_in_time_is_refused() -> None:
    service = AuthService(ANSWERS, slow={"late": asyncio.Event()})
    async with service.serving(), asking(service, "1s") as broker:
        async with entering(broker, "late") as client:
            assert client.connack == connack(3)
        service.slow["late"].set()
        async with entering(broker, "late") as client:
            assert client.connack == WELCOME
