"""Puts blocks of addresses into the acceptors' sets.

There they refuse a client before any byte of TLS or MQTT is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ...model.networks import IPNetwork, network_text, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...model.records import BlockedClient


class AddressSet(Protocol):
    """`proxyproto_rs.AddressSet`, as far as blocks need it."""

    def add(self, net: Any, *, expires: float | None = None) -> None:
        """Add a network for `expires` seconds, or for ever. It replaces the same network."""

    def discard(self, net: Any) -> Any:
        """Remove exactly this network, if it is there."""


class BlockedSets:
    """Keeps any number of AddressSets equal to the blocks of addresses."""

    def __init__(self) -> None:
        self._sets: list[tuple[AddressSet, frozenset[str]]] = []

    def bind(
        self,
        addresses: AddressSet,
        blocks: Iterable[BlockedClient],
        now_ms: int,
        *,
        keep: Iterable[IPNetwork] = (),
    ) -> None:
        """Keep this set up to date too. `keep` are its owner's entries (a listener's `deny`), never removed."""
        kept = frozenset(network_text(network) for network in keep)
        self._sets.append((addresses, kept))
        for block in blocks:
            self._put(addresses, kept, block, now_ms)

    def unbind(self, addresses: AddressSet) -> None:
        """Keep this set up to date no longer, and leave it as it is."""
        self._sets = [entry for entry in self._sets if entry[0] is not addresses]

    def put(self, block: BlockedClient, now_ms: int) -> None:
        """Take over a block that was added or changed."""
        for addresses, kept in self._sets:
            self._put(addresses, kept, block, now_ms)

    def discard(self, block: BlockedClient) -> None:
        """Take out a block that was removed or has expired."""
        if block.type != "IP_ADDRESS":
            return
        for addresses, kept in self._sets:
            if block.value not in kept:
                addresses.discard(_written(block))

    def _put(self, addresses: AddressSet, kept: frozenset[str], block: BlockedClient, now_ms: int) -> None:
        if block.type != "IP_ADDRESS" or block.value in kept:
            return
        if not block.active(now_ms):
            addresses.discard(_written(block))
        elif block.expiration_time:
            addresses.add(_written(block), expires=(block.expiration_time - now_ms) / 1000)
        else:
            addresses.add(_written(block))


def _written(block: BlockedClient) -> str:
    return str(parse_network(block.value))
