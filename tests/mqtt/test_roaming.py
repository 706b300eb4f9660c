"""Clients that come back from another address while their old connection is still open."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from .peers import (
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    connect,
    dial,
    log_in,
    publish,
    running,
    subscribe,
    will,
)

if TYPE_CHECKING:
    from .peers import Broker

CLIENTS = 500


async def test_500_clients_connect_publish_and_roam_at_once() -> None:
    async with running() as broker, log_in(broker.address(), connect("collector", keep_alive=0)) as collector:
        await collector.ask(subscribe("+/+", qos=1))
        collecting = asyncio.create_task(collect(collector, 2 * CLIENTS))
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.gather(*(roam(broker, stack, number) for number in range(CLIENTS)))
            received = await collecting
            assert received == Counter(
                {(f"dev-{n}", where): 1 for n in range(CLIENTS) for where in ("old", "new")}
            )
            sessions = broker.service.sessions
            for number in range(CLIENTS):
                record = sessions.record(f"dev-{number}")
                assert record is not None
                assert record.connection.client == new_address(number)
                session, _ = broker.service.broker.sessions[f"dev-{number}"]
                assert (session.remote_address, session.remote_port) == new_address(number)
                assert session.transitions.state == "connected"
            assert sessions.connected == CLIENTS + 1
            assert broker.service.metrics.disconnects["tcp", "taken-over"] == CLIENTS
    assert not broker.service.gate.faults.count


async def roam(broker: Broker, stack: contextlib.AsyncExitStack, number: int) -> None:
    """Publish from one address, come back from another without a DISCONNECT, and publish again."""
    how = connect(f"dev-{number}", clean_session=number % 2 == 0, keep_alive=0)
    old_address = (f"192.0.2.{number % 250 + 1}", 10_000 + number)
    old = await stack.enter_async_context(log_in(broker.address(), how, source=old_address))
    assert old.connack == WELCOME
    old.send(publish(f"dev-{number}/old", b"x", 1))
    new = await stack.enter_async_context(log_in(broker.address(), how, source=new_address(number)))
    assert new.connack == (WELCOME if how.clean_session else WELCOME_BACK)
    new.send(publish(f"dev-{number}/new", b"x", 1))
    assert await new.packet() == b"\x40\x02\x00\x01"


def new_address(number: int) -> tuple[str, int]:
    return (f"203.0.113.{number % 250 + 1}", 20_000 + number)


async def collect(collector, count: int) -> Counter[tuple[str, str]]:  # type: ignore[no-untyped-def] # noqa: ANN001
    received: Counter[tuple[str, str]] = Counter()
    while received.total() < count:
        device, _, where = (await collector.message()).topic.partition("/")
        received[device, where] += 1
    return received


async def test_fifty_roams_of_a_subscriber_lose_nothing() -> None:
    how = connect("sub", clean_session=False)
    async with (
        running() as broker,
        log_in(broker.address(), connect("pub"), source=OTHER) as publisher,
        contextlib.AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(log_in(broker.address(), how))
        await client.ask(subscribe("a", qos=1))
        for number in range(50):
            publisher.send(publish("a", str(number).encode(), 1))
            await publisher.packet()
            # The message may be on its way to the connection that is taken over. Without an acknowledgement it comes again.
            client = await stack.enter_async_context(
                log_in(broker.address(), how, source=("192.0.2.9", number + 1))
            )
            assert client.connack == WELCOME_BACK
            message = await client.message()
            assert (message.payload, message.retain) == (str(number).encode(), False)
        assert await client.ask(PINGREQ) == PINGRESP


async def test_thirty_at_the_same_time_leave_one() -> None:
    how = connect("one-id", will=will())
    async with running() as broker, contextlib.AsyncExitStack() as stack:
        logins = (
            stack.enter_async_context(log_in(broker.address(), how, source=("192.0.2.9", n)))
            for n in range(1, 31)
        )
        clients = await asyncio.gather(*logins)
        assert {client.connack for client in clients} == {WELCOME}
        for client in clients:
            client.send(PINGREQ)
        answers = [await client.packet() for client in clients]
        assert answers.count(PINGRESP) == 1
        assert answers.count(b"") == 29
        assert broker.service.sessions.connected == 1


async def test_a_client_that_has_left_takes_nothing_over() -> None:
    """If the client is gone by the time its login succeeds, the login ends no other session."""
    async with running() as broker, log_in(broker.address(), connect("dev")) as victim:
        gate = broker.service.gate
        (holder,) = gate._visitors.values()
        gate._entering.in_turn(holder, lambda: None)
        async with dial(broker.address(), connect("dev").encode()):
            await broker.until(lambda: gate._entering._turns["dev"])
        (late,) = (visitor for visitor in gate._visitors.values() if visitor is not holder)
        await broker.until(lambda: not gate.gateway.can_send(late.token))
        gate._entering.end(holder)
        await broker.until(lambda: len(gate._visitors) == 1)
        assert await victim.ask(PINGREQ) == PINGRESP
        assert [row.reason_code for row in await broker.rows()] == ["closed-early"]


async def test_another_user_does_not_get_the_session() -> None:
    async with running() as broker, log_in(broker.address(), connect("dev", clean_session=False)) as owner:
        for clean in (True, False):
            async with log_in(
                broker.address(), connect("dev", username="other", clean_session=clean)
            ) as client:
                assert client.connack == b"\x20\x02\x00\x05"
        assert await owner.ask(PINGREQ) == PINGRESP
        (row,) = await broker.rows()
        assert (row.reason_code, row.attempts) == ("access-denied", 2)


async def test_another_user_gets_the_session_where_the_operator_allows_it() -> None:
    async with (
        running(mqtt={"client_id_owner": "any"}) as broker,
        log_in(broker.address(), connect("dev")) as owner,
        log_in(broker.address(), connect("dev", username="other")) as client,
    ):
        assert client.connack == WELCOME
        assert await owner.end() == b""
