"""Checks every client before any plugin runs: blocks first, then access rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.reasons import Refuse
from ..model.records import BY_LIST

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from ..model.login import Login
    from ..model.records import BlockedClient
    from ..tables.blocks.blocked import Blocked
    from .access import AccessRules


class Checks:
    """The gate's checks of clients. `rules` may be replaced while running. `block_hits` counts by type of block.

    `blocklist` returns the name of the list that keeps an address out, if one does, and counts so many hits of it.
    """

    def __init__(
        self,
        blocked: Blocked,
        rules: AccessRules,
        block_hits: Counter[str],
        blocklist: Callable[[str, int], str | None] = lambda _address, _count: None,
    ) -> None:
        self.rules = rules
        self._blocked = blocked
        self._block_hits = block_hits
        self._blocklist = blocklist

    def address(self, address: str) -> None:
        """Check an address that no acceptor has checked, one from X-Forwarded-For. Raises Refuse."""
        self._refuse(self._blocked.match_address(address))
        self._refuse_listed(address)

    def connect(self, client: Login) -> None:
        """Check who the client says it is, and where it comes from. Raises Refuse."""
        connection, connect = client.connection, client.connect
        address = connection.client[0]
        self._refuse(self._blocked.match(connect.client_id, client.username, address))
        if not connection.is_proxy_itself:
            self._refuse_listed(address)
        decision, rule = self.rules.decide(connect.client_id, client.username, connection.listener, address)
        if decision == "deny":
            raise Refuse("access-denied", f"by access[{rule}]")

    def forbid(self, client_id: str, username: str | None, listener: str, address: str) -> bool:
        """Whether a connected client would not be let in any more. This counts no hit."""
        if self._blocked.covers(client_id, username, address) is not None:
            return True
        if self._blocklist(address, 0) is not None:
            return True
        return self.rules.decide(client_id, username, listener, address)[0] == "deny"

    def _refuse_listed(self, address: str) -> None:
        name = self._blocklist(address, 1)
        if name is not None:
            self._block_hits[BY_LIST] += 1
            raise Refuse("blocked", f"by blocklist {name}")

    def _refuse(self, block: BlockedClient | None) -> None:
        if block is not None:
            self._block_hits[block.type] += 1
            raise Refuse("blocked", f"by {block.type} {block.value}")
