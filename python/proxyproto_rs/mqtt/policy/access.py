"""Access rules: which clients may log in, from where and over which listener. The first rule that matches decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..model.networks import IPNetwork, parse_address
from ..model.patterns import Pattern, compile_globs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import AccessRule
    from ..model.networks import IPAddress

Decision = Literal["allow", "deny"]


class AccessRules:
    """The rules of the configuration file, compiled. A client that no rule matches may log in."""

    def __init__(self, rules: Sequence[AccessRule] = ()) -> None:
        self._rules = [_Compiled.of(rule) for rule in rules]

    def decide(
        self, client_id: str, username: str | None, listener: str, address: str
    ) -> tuple[Decision, int | None]:
        """Return the decision for a client, and the position of the rule that made it (None if none matched).

        For `users`, a client without a user name has the name "". A text that is not an IP address is in no
        network.
        """
        if not self._rules:
            return "allow", None
        parsed = parse_address(address)
        for position, rule in enumerate(self._rules):
            if rule.matches(client_id, username or "", listener, parsed):
                return rule.action, position
        return "allow", None


@dataclass(frozen=True, slots=True)
class _Compiled:
    users: Pattern | None
    clients: Pattern | None
    listeners: Pattern | None
    networks: tuple[IPNetwork, ...] | None
    action: Decision

    @classmethod
    def of(cls, rule: AccessRule) -> _Compiled:
        def compiled(globs: tuple[str, ...] | None) -> Pattern | None:
            return None if globs is None else compile_globs(globs)

        return cls(
            compiled(rule.users),
            compiled(rule.clients),
            compiled(rule.listeners),
            rule.networks,
            rule.action,
        )

    def matches(self, client_id: str, username: str, listener: str, address: IPAddress | None) -> bool:
        for pattern, text in ((self.users, username), (self.clients, client_id), (self.listeners, listener)):
            if pattern is not None and not pattern.fullmatch(text):
                return False
        if self.networks is None:
            return True
        return address is not None and any(address in network for network in self.networks)
