"""`--watch`: it looks again when something happens, and goes on when the broker or its events are away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.http.asking import READ_TOKEN, serving
from mqtt.peers import WAIT, connect, log_in
from proxyproto_rs.cli import watching
from proxyproto_rs.cli.operating import Api
from proxyproto_rs.cli.trouble import Trouble
from proxyproto_rs.cli.watching import Watch
from proxyproto_rs.mqtt.telling import feed as feeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqtt.http import asking


class Looks:
    """Looks at the sessions of a broker, one by one. They are taken in threads, since they wait."""

    def __init__(self, api: asking.Api) -> None:
        asked = Api(api.url, READ_TOKEN)
        self._looks = Watch(asked).looks(lambda: asked.ask("GET", "/api/v2/client-session"))

    async def next(self) -> list[str]:
        page = await asyncio.wait_for(asyncio.to_thread(next, self._looks), WAIT)
        return [row["clientId"] for row in page["data"]]

    async def __aenter__(self) -> Looks:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looks.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again without an event."""
    monkeypatch.setattr(watching, "EVERY", 3600.0)
    monkeypatch.setattr(watching, "QUIET", 3600.0)
    monkeypatch.setattr(watching, "SHORTEST", 0.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EVERY", 0.05)
    monkeypatch.setattr(watching, "QUIET", 3600.0)
    monkeypatch.setattr(watching, "SHORTEST", 0.0)


@pytest.mark.usefixtures("patient")
async def test_an_event_lets_it_look_at_once() -> None:
    async with serving() as (broker, api), Looks(api) as looks:
        assert await looks.next() == []
        await broker.until(lambda: len(broker.service.feed) == 1)
        async with log_in(broker.address(), connect("dev-1")):
            assert await looks.next() == ["dev-1"]


@pytest.mark.usefixtures("hasty")
async def test_without_events_it_looks_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LISTENERS", 0)
    async with serving() as (broker, api), Looks(api) as looks:
        for _ in range(3):
            assert await looks.next() == []
        async with log_in(broker.address(), connect("dev-1")):
            while await looks.next() != ["dev-1"]:
                pass
        assert len(broker.service.feed) == 0


@pytest.mark.usefixtures("hasty")
async def test_events_that_end_are_asked_for_again() -> None:
    async with serving() as (broker, api), Looks(api) as looks:
        await looks.next()
        await broker.until(lambda: len(broker.service.feed) == 1)
        (first,) = broker.service.feed._subscriptions
        broker.service.feed.close()
        await broker.until(
            lambda: len(broker.service.feed) == 1 and first not in broker.service.feed._subscriptions
        )


class Scripted:
    """A broker without events, and what it answers."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    def events(self) -> Iterator[bytes]:
        raise Trouble("not found", 404)

    def ask(self) -> Any:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.usefixtures("hasty")
def test_a_broker_that_is_away_is_told_once_and_asked_until_it_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = Scripted(
        1, Trouble("it cannot be asked"), Trouble("the store is away", 503), 2, Trouble("gone"), 3
    )
    looks = Watch(broker).looks(broker.ask)
    assert [next(looks) for _ in range(3)] == [1, 2, 3]
    assert capsys.readouterr().err == (
        "proxyproto-rs: it cannot be asked; trying again\nproxyproto-rs: gone; trying again\n"
    )


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("answers", [[Trouble("nobody there")], [1, Trouble("the token is wrong", 401)]])
def test_trouble_that_will_not_pass_ends_it(answers: list[Any]) -> None:
    broker = Scripted(*answers)
    with pytest.raises(Trouble):
        list(Watch(broker).looks(broker.ask))
