"""The broker's table of subscriptions: it may change while code walks it, and it knows each client's filters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from proxyproto_rs.mqtt.backend.amqtt.subscriptions import Subscriptions


@dataclass
class Session:
    client_id: str


def table(**filters: list[str]) -> Subscriptions:
    subscriptions = Subscriptions()
    for name, clients in filters.items():
        subscriptions[name] = []
        for client_id in clients:
            subscriptions[name].append((Session(client_id), 1))
    return subscriptions


def test_changes_do_not_disturb_the_walk() -> None:
    subscriptions = table(a=["one", "two"], b=["one"])
    seen = []
    for name, subscribers in subscriptions.items():
        for session, _ in subscribers:
            seen.append((name, session.client_id))
            subscribers.pop(0)
            subscriptions["new" + name] = []
    assert seen == [("a", "one"), ("a", "two"), ("b", "one")]


def test_the_index_follows() -> None:
    subscriptions = table(a=["one", "two"], b=["one"])
    assert subscriptions.of("one") == {"a": 1, "b": 1}
    subscriptions["b"].pop(0)
    assert subscriptions.of("one") == {"a": 1}
    subscriptions.drop("one")
    assert subscriptions.of("one") == {}
    assert dict(subscriptions) == {"a": [(Session("two"), 1)], "b": []}
    assert "one" not in subscriptions.by_client


def test_a_filter_without_subscribers_is_dropped_with_the_next_message() -> None:
    subscriptions = table(a=["one"])
    subscriptions["a"].pop(0)
    assert list(subscriptions.items()) == []
    assert not dict.__len__(subscriptions)


async def test_a_client_that_logs_in_sees_its_own_filters_only() -> None:
    subscriptions = table(a=["one"], b=["two"])
    assert list(subscriptions) == ["a", "b"]
    subscriptions.logging_in[asyncio.current_task()] = "two"
    assert list(subscriptions) == ["b"]
    assert await asyncio.create_task(names(subscriptions)) == ["a", "b"]


async def names(subscriptions: Subscriptions) -> list[str]:
    return list(subscriptions)
