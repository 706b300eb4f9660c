"""Blocks: TBMQ's calls, and what a block would cover."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ..model.paging import to_json
from ..model.records import BlockedClient, BlockQuery
from ..model.session_record import ConnectedClient
from ..tables.blocks.index import refuse_to_cover
from ..tables.blocks.preview import Preview, cover_test
from . import matching
from .answers import Block, Blocklist, BlockPreviewAnswer, Done, NewBlock, PageOf
from .call import Call, Route
from .errors import ApiError
from .queries import BlockOf, BlockParameters, query_of


async def find(call: Call) -> Any:
    """List blocks."""
    return to_json(await call.broker.blocked.find(query_of(BlockQuery, call.parameters)))


async def add(call: Call) -> Any:
    """Block, or change the block of the same thing. The sessions that it covers end."""
    block = _block_of(call.body.model_dump(by_alias=True, exclude_unset=True))
    if not block.active(int(time.time() * 1000)):
        raise ApiError(400, f"expirationTime {block.expiration_time} is in the past")
    try:
        return to_json(await call.broker.blocked.add(block, by=call.by))
    except ValueError as wrong:
        raise ApiError(409, str(wrong)) from None


async def remove(call: Call) -> Any:
    """Remove a block."""
    named = call.parameters
    try:
        removed = await call.broker.blocked.remove(
            named.type, named.value, named.regex_match_target, by=call.by
        )
    except ValueError as wrong:
        raise ApiError(400, str(wrong)) from None
    if not removed:
        raise ApiError(404, f"there is no block of {named.type} {named.value[:100]!r}")
    return {"count": 1}


async def remove_all(call: Call) -> Any:
    """Remove all blocks that match."""
    matching.require_filter(call.parameters, "remove every block")
    blocked = call.broker.blocked
    found: list[BlockedClient] = []
    async for rows, _ in matching.rows_of(blocked.find, query_of(BlockQuery, call.parameters)):
        found += rows
    count = 0
    for block in found:
        count += await blocked.remove(block.type, block.value, block.regex_match_target, by=call.by)
        await asyncio.sleep(0)  # a store in memory does not wait
    return {"count": count}


async def what_if(call: Call) -> Any:
    """Say whom a block would cover now, on all nodes. It changes nothing."""
    named = call.parameters
    try:
        block = BlockedClient(type=named.type, value=named.value, regex_match_target=named.regex_match_target)
    except ValueError as wrong:
        raise ApiError(400, str(wrong)) from None
    refused = None
    try:
        refuse_to_cover(block, call.broker.blocked.proxies())
    except ValueError as wrong:
        refused = str(wrong)
    preview = Preview(cover_test(block))

    async def visit(clients: Sequence[ConnectedClient]) -> None:
        # In a thread, because a pattern over a hundred thousand sessions takes longer than a login should wait.
        await asyncio.to_thread(preview.add, clients)

    await call.broker.sessions.visit_connected(block, visit)
    return to_json(preview.result(refused))


async def ttl(call: Call) -> Any:
    """Return for how many minutes an expired block stays listed, as TBMQ does."""
    return int(call.broker.config.blocked.cleanup_ttl // 60)


def _block_of(body: dict[str, Any]) -> BlockedClient:
    try:
        return BlockedClient.from_json(body)
    except ValueError as wrong:
        raise ApiError(400, str(wrong)) from None


async def lists(call: Call) -> Any:
    """List the lists of networks that others name."""
    every = {one.label: one.interval for one in call.broker.config.blocklists}
    now = time.time()
    return [
        {
            **to_json(state),
            "ageSeconds": round(max(0.0, now - state.read_at / 1000), 3) if state.read_at else None,
            "everySeconds": every.get(state.name),
        }
        for state in call.broker.blocklists.states()
    ]


ROUTES = (
    Route("GET", "/api/blockedClient", find, PageOf[Block], "List blocks", BlockParameters),
    Route("GET", "/api/blockedClient/v2", find, PageOf[Block], "List blocks", BlockParameters),
    Route(
        "POST",
        "/api/blockedClient",
        add,
        Block,
        "Block a client id, a user, an address, a network or a pattern",
        body=NewBlock,
        needs="write",
        statuses=(409,),
    ),
    Route(
        "DELETE",
        "/api/blockedClient",
        remove,
        Done,
        "Remove a block",
        BlockOf,
        needs="write",
        statuses=(404,),
    ),
    Route(
        "DELETE",
        "/api/blockedClient/v2",
        remove_all,
        Done,
        f"Remove all blocks that match, at most {matching.ROWS}",
        BlockParameters,
        needs="write",
    ),
    Route("GET", "/api/blockedClient/ttl", ttl, int, "Minutes for which an expired block stays listed"),
    Route("GET", "/api/blocklists", lists, list[Blocklist], "List the lists of networks that others name"),
    Route(
        "GET",
        "/api/blockedClient/preview",
        what_if,
        BlockPreviewAnswer,
        "Say whom a block would cover",
        BlockOf,
    ),
)
