"""Events as they happen: for scripts, bounded for everybody."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from mqtt.peers import WAIT, connect, log_in
from proxyproto_rs.mqtt.telling import feed as feeds
from proxyproto_rs.mqtt.telling.feed import Feed

from .asking import READ_TOKEN, serving

if TYPE_CHECKING:
    import aiohttp
    import pytest

    from .asking import Api


async def listen(api: Api, token: str = READ_TOKEN) -> aiohttp.ClientResponse:
    response = await api.session.get(
        api.url + "api/events", headers={"Authorization": f"Bearer {token}"}, timeout=None
    )
    assert response.headers["Content-Type"] == "text/event-stream"
    assert await response.content.readline() == b": connected\n"
    return response


async def next_event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    while True:
        line = await asyncio.wait_for(response.content.readline(), WAIT)
        assert line, "the stream ended"
        if line.startswith(b"event: "):
            data = await response.content.readline()
            return line[7:].strip().decode(), json.loads(data.removeprefix(b"data: "))


async def test_events_are_those_of_the_audit_log_even_without_one() -> None:
    async with serving() as (broker, api):
        await api.fails(401, "GET", "/api/events", token=None)
        response = await listen(api)
        async with log_in(broker.address(), connect("dev")):
            kind, event = await next_event(response)
        assert (kind, event["event"], event["clientId"]) == ("client.connected", "client.connected", "dev")
        assert event["client"] == {"ip": "192.0.2.10", "port": 50123}
        assert (await next_event(response))[0] == "client.disconnected"
        response.close()
        await broker.until(lambda: not len(broker.service.feed))


async def test_stopping_ends_the_stream() -> None:
    async with serving() as (broker, api):
        response = await listen(api)
        await broker.service.stop()
        assert await asyncio.wait_for(response.content.read(), WAIT)  # the last events, and then the end
        response.close()


async def test_a_listener_that_does_not_read_misses_events_and_is_told() -> None:
    feed = Feed()
    slow, quick = feed.subscribe(), feed.subscribe()
    assert slow is not None
    assert quick is not None
    for number in range(feeds.WAITING + 5):
        feed.publish("x", str(number))
        if number < feeds.WAITING:
            events, dropped = await quick.take(WAIT)
            assert (len(events), dropped) == (1, 0)
    events, dropped = await slow.take(WAIT)
    assert (len(events), dropped) == (feeds.WAITING, 5)
    assert events[0] == b"event: x\ndata: 0\n\n"
    assert feed.dropped == 5
    events, dropped = await quick.take(WAIT)
    assert (len(events), dropped) == (5, 0)
    assert await slow.take(0.001) == ([], 0)


async def test_so_many_may_listen_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LISTENERS", 2)
    async with serving() as (broker, api):
        first, second = await listen(api), await listen(api)
        assert "too many" in await api.fails(503, "GET", "/api/events")
        first.close()
        await broker.until(lambda: len(broker.service.feed) == 1)
        third = await listen(api)
        for response in (second, third):
            response.close()
        await broker.until(lambda: not len(broker.service.feed))


async def test_a_thousand_listeners_share_what_waits() -> None:
    feed = Feed()
    listeners = [feed.subscribe() for _ in range(feeds.LISTENERS)]
    assert feed.subscribe() is None
    feed.publish("x", "1")
    taken = [await listener.take(WAIT) for listener in listeners if listener is not None]
    assert len({id(events[0]) for events, _ in taken}) == 1
    for listener in listeners:
        assert listener is not None
        feed.unsubscribe(listener)
    assert len(feed) == 0


async def test_a_listener_that_takes_nothing_holds_up_nobody_and_fills_no_memory() -> None:
    async with serving() as (broker, api):
        host, port = api.url.removeprefix("http://").rstrip("/").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(
            f"GET /api/events HTTP/1.1\r\nHost: {host}\r\nX-Authorization: Bearer {READ_TOKEN}\r\n\r\n".encode()
        )
        await broker.until(lambda: len(broker.service.feed) == 1)
        (subscription,) = broker.service.feed._subscriptions
        # The kernel and the transport take some; then what waits is bounded, and the rest is counted.
        line = "x" * 10_000
        while not broker.service.feed.dropped:
            broker.service.feed.publish("x", line)
            assert len(subscription._waiting) <= feeds.WAITING
            await asyncio.sleep(0)
        async with log_in(broker.address(), connect("dev")) as client:
            assert client.connack
        assert (await api.ask("GET", "/api/overview")).json["dropped"]["events"] >= 1
        writer.transport.abort()
        del reader
        await broker.until(lambda: not len(broker.service.feed))


async def test_a_thousand_listen_over_http_and_all_hear_while_clients_log_in() -> None:
    async with serving() as (broker, api):
        host, port = api.url.removeprefix("http://").rstrip("/").split(":")
        request = f"GET /api/events HTTP/1.1\r\nHost: {host}\r\nX-Authorization: Bearer {READ_TOKEN}\r\n\r\n".encode()
        opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            for _ in range(feeds.LISTENERS // 50):
                some = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(50)))
                for _, writer in some:
                    writer.write(request)
                opened += some
            await broker.until(lambda: len(broker.service.feed) == feeds.LISTENERS)
            assert "too many" in await api.fails(503, "GET", "/api/events")
            async with log_in(broker.address(), connect("dev")) as client:
                assert client.connack
                for reader, _ in opened:
                    await asyncio.wait_for(reader.readuntil(b"event: client.connected\n"), WAIT)
            assert broker.service.feed.dropped == 0
        finally:
            for _, writer in opened:
                writer.transport.abort()
        await broker.until(lambda: not len(broker.service.feed))
