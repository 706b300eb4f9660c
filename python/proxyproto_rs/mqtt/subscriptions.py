"""The broker's table of subscriptions in a form that can be walked while it changes, indexed by client.

amqtt walks it at every message with awaits in between, and at every login from end to end; with a plain dict
the one loses messages and the other makes a login as expensive as everybody's subscriptions together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NONE: Mapping[str, int] = {}


class Subscriptions(dict[str, "Subscribers"]):
    """Topic filter to a list of (session, QoS), as amqtt keeps it. No change disturbs who walks it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_client: dict[str, dict[str, int]] = {}
        self.logging_in: dict[asyncio.Task[Any] | None, str] = {}
        """Tasks that log a client in, and its id: to them, walking the filters shows that client's own."""

    def __setitem__(self, name: str, subscribers: Iterable[tuple[Any, int]]) -> None:
        super().__setitem__(name, Subscribers(name, self.by_client, subscribers))

    def __iter__(self) -> Iterator[str]:
        if self.logging_in and (client_id := self.logging_in.get(asyncio.current_task())) is not None:
            return iter(list(self.by_client.get(client_id, ())))
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        """Walk pairs of filter and subscribers; a filter nobody holds any more is dropped on the way."""
        for name in list(super().__iter__()):
            subscribers = self.get(name)
            if subscribers:
                yield name, subscribers
            elif subscribers is not None:
                # UNSUBSCRIBE leaves the empty list behind; random filters would fill the memory.
                del self[name]

    def of(self, client_id: str) -> Mapping[str, int]:
        """Give a client's filters and their QoS."""
        return self.by_client.get(client_id, _NONE)

    def drop(self, client_id: str) -> None:
        """Take a client out of every list."""
        for name in list(self.by_client.get(client_id, ())):
            subscribers = self[name]
            for index, (session, _) in enumerate(subscribers):
                if session.client_id == client_id:
                    subscribers.pop(index)
                    break
            if not subscribers:
                del self[name]


class Subscribers(list[tuple[Any, int]]):
    """Who holds one filter; the ways in which amqtt changes it keep the index right."""

    __slots__ = ("_by_client", "_name")

    def __init__(
        self, name: str, by_client: dict[str, dict[str, int]], subscribers: Iterable[tuple[Any, int]]
    ) -> None:
        super().__init__()
        self._name = name
        self._by_client = by_client
        for subscriber in subscribers:
            self.append(subscriber)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return iter(self[:])

    def append(self, subscriber: tuple[Any, int]) -> None:
        """See list."""
        super().append(subscriber)
        session, qos = subscriber
        self._by_client.setdefault(session.client_id, {})[self._name] = qos

    def pop(self, index: SupportsIndex = -1) -> tuple[Any, int]:
        """See list."""
        subscriber = super().pop(index)
        client_id = subscriber[0].client_id
        filters = self._by_client.get(client_id, {})
        filters.pop(self._name, None)
        if not filters:
            self._by_client.pop(client_id, None)
        return subscriber
