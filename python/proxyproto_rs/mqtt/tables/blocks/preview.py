"""Says whom a block would cover, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...model.networks import covers, parse_network
from ...model.patterns import compile_pattern
from ...model.records import BlockedClient
from ...model.session_record import SessionRecord

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


def preview(block: BlockedClient, records: Iterable[SessionRecord], refused: str | None) -> BlockPreview:
    """Count the connected clients that the block would cover."""
    covers = _test(block)
    covered = [record for record in records if record.connected and covers(record)]
    return BlockPreview(
        sessions=len(covered),
        users=len({record.username for record in covered if record.username is not None}),
        addresses=len({record.connection.client[0] for record in covered}),
        examples=tuple(record.client_id for record in covered[:_EXAMPLES]),
        refused_because=refused,
    )


def _test(block: BlockedClient) -> Callable[[SessionRecord], bool]:
    if block.type == "IP_ADDRESS":
        is_inside = covers(parse_network(block.value))
        return lambda record: is_inside(record.connection.client[0])
    is_meant: Callable[[str], bool] = block.value.__eq__
    if block.type == "REGEX":
        pattern = compile_pattern(block.value)
        is_meant = lambda text: bool(text) and bool(pattern.fullmatch(text))  # noqa: E731 (one of two)
    named = _NAMED[block.regex_match_target or block.type]
    return lambda record: is_meant(named(record))


_NAMED: dict[str, Callable[[SessionRecord], str]] = {
    "CLIENT_ID": lambda record: record.client_id,
    "BY_CLIENT_ID": lambda record: record.client_id,
    "USERNAME": lambda record: record.username or "",
    "BY_USERNAME": lambda record: record.username or "",
    "BY_IP_ADDRESS": lambda record: record.connection.client[0],
}
