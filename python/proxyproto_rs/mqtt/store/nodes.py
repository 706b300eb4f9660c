"""The interface of what the nodes of one store know of each other: who lives, whose sessions are where, who is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from ..model.paging import Page
from ..model.records import BlockedClient
from ..model.session_query import SessionQuery
from ..model.session_record import ConnectedClient, SessionRecord

Verb = Literal["disconnect", "remove", "taken-over"]


Visit = Callable[[Sequence[ConnectedClient]], Awaitable[None]]
"""Is given connected clients, some at a time."""


class Owner(NamedTuple):
    """The user that a session belongs to."""

    username: str | None


class SessionCounts(NamedTuple):
    """How many sessions there are."""

    connected: int
    rows: int
    """Sessions with and without a connection."""


class NodeCounts(NamedTuple):
    """What a node tells of itself with each sign of life."""

    connected: int
    rows: int
    """Sessions with and without a connection."""
    top: Mapping[str, Sequence[tuple[str, float]]]
    """The busiest addresses and their counts, by what `BrokerService.top` takes as `by`."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that shares the store. Times are milliseconds since 1970."""

    node_id: str
    started_at: int
    seen_at: int
    """When it gave its last sign of life."""
    connected: int
    rows: int
    top: Mapping[str, Sequence[tuple[str, float]]]
    is_this: bool
    """Whether it is the node that was asked."""


class Request(NamedTuple):
    """What another node asks of this one."""

    number: int
    verb: Verb
    client_id: str
    session_id: str | None
    by: str


class Nodes(Protocol):
    """Every method raises StoreError, and nothing else, if the store fails."""

    async def enter(self, node_id: str, *, outlives: bool) -> None:
        """Begin a life of this node. Sessions of an earlier one are then those of a node that has gone.

        With `outlives` its sessions are kept by servers behind, so they stay when the node goes.
        """

    async def beat(self, counts: NodeCounts) -> bool:
        """Give a sign of life. Return False if the other nodes have taken this one for gone: then `enter` again."""

    async def settle(self, silent: float | None) -> int:
        """Close the rows of nodes that have left, and of those without a sign of life for `silent` seconds, if given.

        Return how many rows there were.
        """

    async def purge(self, now: int) -> int:
        """Delete the rows of nodes that have gone whose sessions have expired. Return how many."""

    async def write(self, records: Sequence[SessionRecord], ended: Sequence[str]) -> tuple[str, ...]:
        """Write the present state of sessions, and delete those that have ended.

        Return the client ids whose newest connection is on another node: nothing was written for them.
        """

    async def moved(self, client_ids: Sequence[str]) -> frozenset[str]:
        """Return those client ids whose newest connection is on another node."""

    async def find(self, query: SessionQuery) -> Page[SessionRecord]:
        """Find a page of the sessions of all nodes. Totals above 10,000 are estimates."""

    async def get(self, client_id: str) -> SessionRecord | None:
        """Return the session of a client id, on whatever node it is."""

    async def count_elsewhere(self) -> SessionCounts:
        """Count the sessions of the other nodes, as these told last, and those that nodes which have gone have left."""

    async def visit_connected(self, block: BlockedClient, visit: Visit) -> None:
        """Visit the connected clients of all nodes that the block may cover: all, if it is a pattern."""

    async def owner_elsewhere(self, client_id: str) -> Owner | None:
        """Return the owner of a session that another node has, or has left; None if there is none."""

    async def ask(self, verb: Verb, client_id: str, session_id: str | None, by: str) -> int | None:
        """Ask the node that has the session. Return the number of the request; None if no living node has it."""

    async def answer_of(self, number: int) -> str | None:
        """Return the answer to a request; None while there is none."""

    async def asked(self) -> tuple[Request, ...]:
        """Return what this node is asked, oldest first. A request stays until it is answered."""

    async def answer(self, answers: Sequence[tuple[int, str]]) -> None:
        """Answer requests, by their numbers."""

    def when_asked(self, told: Callable[[], None]) -> None:
        """Call `told` in the event loop, soon after this node was asked something, or got an answer."""

    async def list(self) -> tuple[Node, ...]:
        """Return the nodes that live."""

    async def leave(self) -> None:
        """End the life of this node. The others close the rows of what it has left."""
