"""The broker's table of subscriptions, indexed by client. It may change while somebody iterates over it.

amqtt iterates over it for every message, with awaits in between, and once for every login. With a plain dict,
messages would be lost, and a login would cost as much as all subscriptions together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NONE: Mapping[str, int] = {}


class Subscriptions(dict[str, "Subscribers"]):
    """Topic filter -> list of (session, QoS), as amqtt keeps it. A change does not disturb an iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.by_client: dict[str, dict[str, int]] = {}
        self.logging_in: dict[asyncio.Task[Any] | None, str] = {}
        """Tasks that log a client in -> its client id. Such a task sees only its client's own filters."""

    def __setitem__(self, name: str, subscribers: Iterable[tuple[Any, int]]) -> None:
        super().__setitem__(name, Subscribers(name, self.by_client, subscribers))

    def __iter__(self) -> Iterator[str]:
        if self.logging_in and (client_id := self.logging_in.get(asyncio.current_task())) is not None:
            return iter(list(self.by_client.get(client_id, ())))
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        """Iterate over pairs of a filter and its subscribers. A filter without subscribers is dropped on the way."""
        for name in list(super().__iter__()):
            subscribers = self.get(name)
            if subscribers:
                yield name, subscribers
            elif subscribers is not None:
                # UNSUBSCRIBE leaves an empty list. Without this, random filters would fill the memory.
                del self[name]

    def of(self, client_id: str) -> Mapping[str, int]:
        """Return a client's filters and their QoS."""
        return self.by_client.get(client_id, _NONE)

    def drop(self, client_id: str) -> None:
        """Remove a client from every list."""
        for name in list(self.by_client.get(client_id, ())):
            subscribers = self[name]
            for index, (session, _) in enumerate(subscribers):
                if session.client_id == client_id:
                    subscribers.pop(index)
                    break
            if not subscribers:
                del self[name]


class Subscribers(list[tuple[Any, int]]):
    """The subscribers of one filter. The methods by which amqtt changes the list keep the index right."""

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
        """Append a subscriber, and add the filter to its client's index."""
        super().append(subscriber)
        session, qos = subscriber
        self._by_client.setdefault(session.client_id, {})[self._name] = qos

    def pop(self, index: SupportsIndex = -1) -> tuple[Any, int]:
        """Remove a subscriber, and take the filter out of its client's index."""
        subscriber = super().pop(index)
        client_id = subscriber[0].client_id
        filters = self._by_client.get(client_id, {})
        filters.pop(self._name, None)
        if not filters:
            self._by_client.pop(client_id, None)
        return subscriber
