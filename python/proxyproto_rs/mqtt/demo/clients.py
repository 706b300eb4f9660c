"""The pretended clients of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxyproto_rs import Header

from ..model.connection import Address


@dataclass(frozen=True)
class Pretended:
    """A client as the proxy describes it, and what must happen to it."""

    client_id: str
    address: Address
    version: Literal[1, 2]
    """The version of its header."""
    fate: Literal["talks", "wrong-password", "blocked"]

    def destination(self, broker: Address) -> Address:
        """Return the address that it connected to, of the same family as its own."""
        return ("2001:db8::1", broker[1]) if ":" in self.address[0] else broker

    def header(self, broker: Address) -> Header:
        """Return the header that the proxy sends for it."""
        make = Header.v1 if self.version == 1 else Header.v2
        return make(self.address, self.destination(broker))


CLIENTS = (
    Pretended("sensor-7", ("192.0.2.10", 50123), 2, "talks"),
    Pretended("display-1", ("198.51.100.7", 40001), 1, "talks"),
    Pretended("guesser", ("2001:db8::42", 4242), 2, "wrong-password"),
    Pretended("scanner", ("203.0.113.9", 60000), 2, "blocked"),
)
