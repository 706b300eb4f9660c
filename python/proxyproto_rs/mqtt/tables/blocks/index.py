"""The blocks in memory, found by client id, user, address or pattern. This module reads no clock."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ...model.networks import IPNetwork, parse_address, parse_network
from ...model.patterns import Pattern, compile_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...model.networks import IPAddress
    from ...model.records import BlockedClient


class BlockIndex:
    """All blocks, with expired ones. Finding an address costs one look-up for each prefix length in use."""

    def __init__(self) -> None:
        self._blocks: dict[str, BlockedClient] = {}
        self._texts: dict[tuple[str, str], str] = {}  # (type, value) -> key
        self._networks: dict[int, dict[int, dict[int, str]]] = {
            4: {},
            6: {},
        }  # version, prefix, network -> key
        self._patterns: dict[str, dict[str, Pattern]] = {}  # target -> key -> pattern

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[BlockedClient]:
        return iter(tuple(self._blocks.values()))

    def get(self, key: str) -> BlockedClient | None:
        """Return the block with that key."""
        return self._blocks.get(key)

    def put(self, block: BlockedClient) -> None:
        """Add a block, or replace the one with its key."""
        if block.key not in self._blocks:
            self._enter(block)
        self._blocks[block.key] = block

    def discard(self, key: str) -> BlockedClient | None:
        """Remove a block and return it."""
        block = self._blocks.pop(key, None)
        if block is None:
            return None
        if block.type == "REGEX":
            assert block.regex_match_target is not None
            del self._patterns[block.regex_match_target][key]
        elif block.type == "IP_ADDRESS":
            network = parse_network(block.value)
            by_network = self._networks[network.version][network.prefixlen]
            del by_network[int(network.network_address)]
            if not by_network:
                del self._networks[network.version][network.prefixlen]
        else:
            del self._texts[block.type, block.value]
        return block

    def covering(self, text: str) -> list[BlockedClient]:
        """Return the blocks of networks that hold an address."""
        address = parse_address(text)
        return [] if address is None else [self._blocks[key] for key in self._covering(address)]

    def match_address(self, text: str, now_ms: int) -> BlockedClient | None:
        """Return an active block that covers the address, by network or by pattern."""
        # Parsing takes 8 us, and every login comes here.
        address = parse_address(text) if any(self._networks.values()) else None
        if address is not None:
            for key in self._covering(address):
                block = self._blocks[key]
                if block.active(now_ms):
                    return block
        return self._match_pattern("BY_IP_ADDRESS", text, now_ms)

    def match(self, client_id: str, username: str | None, address: str, now_ms: int) -> BlockedClient | None:
        """Return the first active block in TBMQ's order: client id, user, address, patterns."""
        for kind, value in (("CLIENT_ID", client_id), ("USERNAME", username)):
            key = self._texts.get((kind, value)) if value else None
            if key is not None and self._blocks[key].active(now_ms):
                return self._blocks[key]
        return (
            self.match_address(address, now_ms)
            or self._match_pattern("BY_CLIENT_ID", client_id, now_ms)
            or self._match_pattern("BY_USERNAME", username, now_ms)
        )

    def _enter(self, block: BlockedClient) -> None:
        if block.type == "REGEX":
            assert block.regex_match_target is not None
            patterns = self._patterns.setdefault(block.regex_match_target, {})
            patterns[block.key] = compile_pattern(block.value)
        elif block.type == "IP_ADDRESS":
            network = parse_network(block.value)
            by_network = self._networks[network.version].setdefault(network.prefixlen, {})
            by_network[int(network.network_address)] = block.key
        else:
            self._texts[block.type, block.value] = block.key

    def _covering(self, address: IPAddress) -> Iterator[str]:
        number, bits = int(address), address.max_prefixlen
        for prefix, by_network in self._networks[address.version].items():
            key = by_network.get(number >> (bits - prefix) << (bits - prefix))
            if key is not None:
                yield key

    def _match_pattern(self, target: str, text: str | None, now_ms: int) -> BlockedClient | None:
        if not text:
            return None
        for key, pattern in self._patterns.get(target, {}).items():
            if self._blocks[key].active(now_ms) and pattern.fullmatch(text):
                return self._blocks[key]
        return None


def refuse_to_cover(block: BlockedClient, proxies: tuple[IPNetwork, ...]) -> None:
    """Raise ValueError for a block that covers a trusted proxy, and so all clients behind it, or all of loopback."""
    if block.type == "REGEX" and block.regex_match_target == "BY_IP_ADDRESS":
        pattern = compile_pattern(block.value)
        for proxy in proxies:
            if proxy.num_addresses == 1 and pattern.fullmatch(str(proxy.network_address)):
                raise ValueError(f"{block.value} would block the trusted proxy {proxy.network_address}")
    if block.type != "IP_ADDRESS":
        return
    network = parse_network(block.value)
    for proxy in proxies:
        if network.overlaps(proxy):
            raise ValueError(f"{block.value} would block the trusted proxy {proxy}")
    for loopback in _LOOPBACK:
        if (
            network.num_addresses > 1
            and network.overlaps(loopback)
            and network.prefixlen <= loopback.prefixlen
        ):
            raise ValueError(f"{block.value} would block all of loopback ({loopback})")


_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
