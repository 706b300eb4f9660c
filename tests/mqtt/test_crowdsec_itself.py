"""CrowdSec itself decides, by `cscli` and by what its agent reads in a broker's log. A running broker refuses accordingly.

The broker pulls when the test says so: CrowdSec does not tell of a decision that it stores during a pull.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.telling import logs

from . import crowdsec
from .peers import CLIENT, OTHER, PINGREQ, PINGRESP, WELCOME, Broker, connack, connect, dial, log_in, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from proxyproto_rs.mqtt.tables.blocklists.blocklists import BlocklistState

    from .crowdsec import Crowdsec


@pytest.fixture
def lapi(tmp_path: Path) -> Iterator[Crowdsec]:
    with crowdsec.installed(tmp_path) as lapi:
        lapi.start()
        yield lapi


@contextlib.asynccontextmanager
async def pulling(lapi: Crowdsec, directory: Path, **sections: Any) -> AsyncIterator[Broker]:
    """A broker that has asked the API once."""
    key = directory / "key"
    key.write_text(await lapi.cscli("bouncers", "add", "node-1", "-o", "raw"))
    blocklists = [{"crowdsec": {"url": lapi.url, "key_file": str(key), "every": "1h"}}]
    async with running(blocklists=blocklists, **sections) as broker:
        await broker.until(lambda: broker.service.blocklists.states()[0].read_at)
        yield broker


async def pull(broker: Broker) -> BlocklistState:
    """Ask the API now."""
    await broker.service.blocklists._lists[0]._read()
    (state,) = broker.service.blocklists.states()
    return state


async def kept_out(broker: Broker) -> set[str]:
    """Ask the API now, and give what it keeps out."""
    state = await pull(broker)
    assert state.error is None
    return set(broker.service.blocklists._lists[0].in_force)


async def answer(broker: Broker, source: tuple[str, int] = CLIENT) -> bytes:
    async with log_in(broker.address(), connect(), source=source) as client:
        return client.connack


async def test_decisions_come_and_go(lapi: Crowdsec, tmp_path: Path) -> None:
    await lapi.ban("--ip", OTHER[0])
    async with pulling(lapi, tmp_path) as broker, log_in(broker.address(), connect("here")) as client:
        assert await kept_out(broker) == {OTHER[0]}
        assert (await answer(broker, OTHER), client.connack) == (b"", WELCOME)
        await lapi.ban("--ip", "203.0.113.9", "--type", "captcha")
        await lapi.ban("--scope", "Country", "--value", "FR")
        await lapi.ban("--range", "2001:db8:1::/48")
        await lapi.ban("--ip", "2001:db8::7")
        assert await kept_out(broker) == {OTHER[0], "2001:db8:1::/48", "2001:db8::7"}
        assert await client.ask(PINGREQ) == PINGRESP
        await lapi.ban("--range", "192.0.2.0/24")
        await pull(broker)
        assert await client.end() == b"", "the session of a client ends that a range names"
        assert await answer(broker) == b""
        await lapi.cscli("decisions", "delete", "--range", "192.0.2.0/24")
        await lapi.cscli("decisions", "delete", "--ip", OTHER[0])
        assert await kept_out(broker) == {"2001:db8:1::/48", "2001:db8::7"}
        assert (await answer(broker), await answer(broker, OTHER)) == (WELCOME, WELCOME)
        await lapi.cscli("decisions", "delete", "--all")
        assert await kept_out(broker) == set()


async def test_an_address_that_is_let_in_is_let_in_by_all_its_decisions(
    lapi: Crowdsec, tmp_path: Path
) -> None:
    async with pulling(lapi, tmp_path) as broker:
        await lapi.ban("--ip", CLIENT[0], "--duration", "1h")
        assert await kept_out(broker) == {CLIENT[0]}
        await lapi.ban("--ip", CLIENT[0], "--duration", "2h")
        assert await kept_out(broker) == {CLIENT[0]}
        await lapi.cscli("decisions", "delete", "--ip", CLIENT[0])
        assert await kept_out(broker) == set()
        assert await answer(broker) == WELCOME


async def test_an_address_is_kept_out_until_its_last_decision_ends(lapi: Crowdsec, tmp_path: Path) -> None:
    longest = await lapi.ban("--ip", CLIENT[0], "--duration", "4h")
    async with pulling(lapi, tmp_path) as broker:
        shorter = await lapi.ban("--ip", CLIENT[0], "--duration", "2h")
        assert await kept_out(broker) == {CLIENT[0]}
        await lapi.cscli("decisions", "delete", "--id", longest)
        assert await kept_out(broker) == {CLIENT[0]}
        await lapi.cscli("decisions", "delete", "--id", shorter)
        assert await kept_out(broker) == set()
        await lapi.ban("--ip", CLIENT[0], "--duration", "5s")
        assert await kept_out(broker) == {CLIENT[0]}

        async def ended() -> bool:
            return await kept_out(broker) == set()

        await broker.until(ended)
        assert await answer(broker) == WELCOME


async def test_the_api_is_away_and_comes_back(lapi: Crowdsec, tmp_path: Path) -> None:
    await lapi.ban("--ip", CLIENT[0])
    async with pulling(lapi, tmp_path) as broker:
        assert await kept_out(broker) == {CLIENT[0]}
        lapi.stop()
        assert (await pull(broker)).error
        assert (await answer(broker), await answer(broker, OTHER)) == (b"", WELCOME)
        lapi.start()
        assert (await pull(broker)).error is None
        await lapi.ban("--ip", OTHER[0])
        assert await kept_out(broker) == {CLIENT[0], OTHER[0]}


async def test_a_key_that_the_api_does_not_know(lapi: Crowdsec, tmp_path: Path) -> None:
    await lapi.ban("--ip", CLIENT[0])
    async with pulling(lapi, tmp_path) as broker:
        assert await kept_out(broker) == {CLIENT[0]}
        key = (tmp_path / "key").read_text()
        (tmp_path / "key").write_text("another")
        assert (await pull(broker)).error == (
            f"{lapi.url}/v1/decisions/stream answered 403: it does not take the key in {tmp_path}/key:"
            " make one with `cscli bouncers add NAME -o raw`, and write it into that file"
        )
        # What has changed meanwhile is not lost.
        await lapi.cscli("decisions", "delete", "--all")
        await lapi.ban("--ip", OTHER[0])
        (tmp_path / "key").write_text(key)
        assert await kept_out(broker) == {OTHER[0]}
        await lapi.cscli("bouncers", "delete", "node-1")
        assert (await pull(broker)).error
        assert await answer(broker, OTHER) == b"", "a bouncer that the operator has deleted keeps what it has"


async def test_who_guesses_passwords_at_the_broker_is_kept_out(
    lapi: Crowdsec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(logs.TextFormatter())
    caplog.set_level(logging.INFO, "proxyproto_rs.mqtt")
    async with pulling(lapi, tmp_path) as broker:
        for _ in range(6):
            async with log_in(broker.address(), connect(password=b"wrong")) as client:
                assert client.connack == connack(5)
        async with log_in(broker.address(), connect(password=b"wrong"), source=OTHER) as client:
            assert client.connack == connack(5), "one mistake is nobody's guess"
        (tmp_path / "broker.log").write_text(caplog.text)
        told = await lapi.read_log(tmp_path / "broker.log", "proxyproto-rs")
        assert f"Ip {CLIENT[0]} performed 'proxyproto-rs/mqtt-bf' (6 events" in told
        assert await kept_out(broker) == {CLIENT[0]}
        async with dial(broker.address()) as client:
            assert await client.end() == b""
        assert await answer(broker, OTHER) == WELCOME
