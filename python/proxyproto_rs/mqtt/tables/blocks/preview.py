"""Says whom a block would cover, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...model.networks import covers, parse_network
from ...model.patterns import compile_pattern
from ...model.records import BlockedClient
from ...model.session_record import ConnectedClient

_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class BlockPreview:
    """Whom a block would cover now, among the connected clients."""

    sessions: int
    users: int
    addresses: int
    examples: tuple[str, ...]
    """Some of the client ids."""
    refused_because: str | None = None
    """Why such a block is not allowed; None if it is."""


class Preview:
    """Counts the connected clients that blocks would cover. `add` may be called in any thread, one at a time."""

    def __init__(self, covers: Callable[[ConnectedClient], bool]) -> None:
        self._covers = covers
        self._sessions = 0
        self._users: set[str] = set()
        self._addresses: set[str] = set()
        self._examples: list[str] = []

    def add(self, clients: Iterable[ConnectedClient]) -> None:
        """Count those of the connected clients that would be covered."""
        for client in clients:
            if not self._covers(client):
                continue
            self._sessions += 1
            if client.username is not None:
                self._users.add(client.username)
            self._addresses.add(client.address)
            if len(self._examples) < _EXAMPLES:
                self._examples.append(client.client_id)

    def result(self, refused: str | None) -> BlockPreview:
        """Return the counts. `refused` says why such a block is not allowed."""
        return BlockPreview(
            sessions=self._sessions,
            users=len(self._users),
            addresses=len(self._addresses),
            examples=tuple(self._examples),
            refused_because=refused,
        )


def cover_test(block: BlockedClient) -> Callable[[ConnectedClient], bool]:
    """Return what says whether a block covers a client."""
    if block.type == "IP_ADDRESS":
        is_inside = covers(parse_network(block.value))
        return lambda client: is_inside(client.address)
    is_meant: Callable[[str], bool] = block.value.__eq__
    if block.type == "REGEX":
        pattern = compile_pattern(block.value)
        is_meant = lambda text: bool(text) and bool(pattern.fullmatch(text))  # noqa: E731 (one of two)
    named = _NAMED[block.regex_match_target or block.type]
    return lambda client: is_meant(named(client))


_NAMED: dict[str, Callable[[ConnectedClient], str]] = {
    "CLIENT_ID": lambda client: client.client_id,
    "BY_CLIENT_ID": lambda client: client.client_id,
    "USERNAME": lambda client: client.username or "",
    "BY_USERNAME": lambda client: client.username or "",
    "BY_IP_ADDRESS": lambda client: client.address,
}
