"""Those that are on their way to a server: counted for the limits, one at a time for each client id."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tables.sessions import Connected, Sessions
    from .visitor import Visitor

_Go = Callable[[], None]


class Entering:
    """Implements `admission.Occupied`: the sessions, and those that are about to be.

    Logins with one client id go upstream one after the other, so that its owner is known when the next is judged.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._counted: dict[int, str] = {}
        self._by_address: Counter[str] = Counter()
        self._turns: dict[str, deque[tuple[Visitor, _Go]]] = {}

    @property
    def connected(self) -> int:
        """How many are connected, or about to be."""
        return self._sessions.connected + len(self._counted)

    def connected_from(self, address: str) -> int:
        """How many of them come from one address."""
        return self._sessions.connected_from(address) + self._by_address[address]

    def client(self, client_id: str) -> Connected | None:
        """Return the connected client with that id."""
        return self._sessions.client(client_id)

    def in_turn(self, visitor: Visitor, go: _Go) -> None:
        """Call `go` when no other client with this id is on its way."""
        client_id = visitor.connect.client_id
        if client_id:
            waiting = self._turns.get(client_id)
            if waiting is not None:
                waiting.append((visitor, go))
                return
            self._turns[client_id] = deque()
            visitor.has_turn = True
        go()

    def begin(self, visitor: Visitor) -> None:
        """Count a client that goes to a server now."""
        address = visitor.connection.client[0]
        self._counted[visitor.token] = address
        self._by_address[address] += 1

    def end(self, visitor: Visitor) -> None:
        """Count it no more, and let the next one with its client id go."""
        address = self._counted.pop(visitor.token, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        client_id = visitor.connect.client_id
        waiting = self._turns.get(client_id)
        if waiting is None:
            return
        if not visitor.has_turn:
            self._turns[client_id] = deque(entry for entry in waiting if entry[0] is not visitor)
            return
        visitor.has_turn = False
        if not waiting:
            del self._turns[client_id]
            return
        following, go = waiting.popleft()
        following.has_turn = True
        go()
