"""Acting on everything that matches a filter: blocks of the addresses of rows, and the removal of blocks."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from ..model.paging import MAX_PAGE_SIZE, Page, Paging
from ..model.records import MAX_TEXT, BlockedClient, UnauthorizedClient
from ..model.session_record import ConnectedClient, SessionRecord
from ..tables.blocks.index import refuse_to_cover
from ..tables.blocks.preview import Preview
from .answers import BlockedMany, MatchingPreview, NewBlocks
from .broker import Broker
from .call import Call, Route
from .errors import ApiError

Row = TypeVar("Row")
Query = TypeVar("Query", bound=Paging)

ROWS = 10_000
"""How many rows that match one request looks at."""
ADDRESSES = 1000
"""How many addresses one request blocks."""

_NO_FILTERS = {"page", "page_size", "sort_property", "sort_order", "cursor"}
_AT_ONCE = 25  # addresses between two turns of the event loop; 10 ms, if 256 proxies are known
_ANYBODY = BlockedClient(type="REGEX", value=".*", regex_match_target="BY_IP_ADDRESS")


def require_filter(parameters: BaseModel, consequence: str) -> None:
    """Raise ApiError for a request without a filter. What is empty filters nothing."""
    filters = parameters.model_fields_set - _NO_FILTERS
    if all(getattr(parameters, name) in (None, "", ()) for name in filters):
        raise ApiError(400, f"name a filter: without one this would {consequence}")


async def rows_of(
    find: Callable[[Query], Awaitable[Page[Row]]], query: Query
) -> AsyncIterator[tuple[Sequence[Row], bool]]:
    """Yield the rows that match, page by page, at most ROWS. With each page: whether there are more behind it."""
    for number in range(ROWS // MAX_PAGE_SIZE):
        page = await find(dataclasses.replace(query, page_size=MAX_PAGE_SIZE, page=number))
        yield page.data, page.has_next
        if not page.has_next:
            return


def block_routes(
    path: str,
    rows: str,
    parameters: type[BaseModel],
    addresses: Callable[[Call], Awaitable[Addresses]],
) -> tuple[Route, Route]:
    """Return the routes that say whom blocks of the addresses of all rows that match would cover, and that block them."""

    async def show(call: Call) -> Any:
        return await _preview(call.broker, await addresses(call))

    async def block(call: Call) -> Any:
        return await _block(call, await addresses(call))

    what = f"the addresses of all {rows} that match"
    return (
        Route(
            "GET",
            f"{path}/block/preview",
            show,
            MatchingPreview,
            f"Say whom blocks of {what} would cover",
            parameters,
        ),
        Route(
            "POST",
            f"{path}/block",
            block,
            BlockedMany,
            f"Block {what}, at most {ADDRESSES}",
            parameters,
            body=NewBlocks,
            needs="write",
        ),
    )


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the rows that match, without those that no block may cover."""

    found: tuple[str, ...]
    more: bool
    """Whether rows were left out."""


async def addresses_of(
    broker: Broker,
    find: Callable[[Query], Awaitable[Page[Row]]],
    query: Query,
    address_of: Callable[[Row], str | None],
) -> Addresses:
    """Find the addresses to block, at most ADDRESSES. Proxies are left out."""
    proxies = broker.blocked.proxies()
    seen: set[str] = set()
    found: list[str] = []
    more = False
    async for rows, has_next in rows_of(find, query):
        more = has_next
        for address in _new(map(address_of, rows), seen):
            try:
                block = BlockedClient(type="IP_ADDRESS", value=address)
                refuse_to_cover(block, proxies)
            except ValueError:  # a proxy, or the path of a UNIX socket
                continue
            if len(found) == ADDRESSES:
                return Addresses(tuple(found), more=True)
            found.append(block.value)
            if len(found) % _AT_ONCE == 0:
                await asyncio.sleep(0)
    return Addresses(tuple(found), more)


def _new(addresses: Iterable[str | None], seen: set[str]) -> Iterable[str]:
    for address in addresses:
        if address and address not in seen:
            seen.add(address)
            yield address


def address_of_session(record: SessionRecord) -> str | None:
    """Return the address of a session's client; None where the header names nobody."""
    connection = record.connection
    return None if connection.is_proxy_itself else connection.client[0]


def address_of_refusal(row: UnauthorizedClient) -> str | None:
    """Return the address of a refused client."""
    return row.ip_address


async def _preview(broker: Broker, addresses: Addresses) -> dict[str, Any]:
    """Say whom blocks of these addresses would cover now, on all nodes. It changes nothing."""
    of_them = frozenset(addresses.found)
    preview = Preview(lambda client: client.address in of_them)

    async def visit(clients: Sequence[ConnectedClient]) -> None:
        await asyncio.to_thread(preview.add, clients)

    await broker.sessions.visit_connected(_ANYBODY, visit)
    seen = preview.result(None)
    return {
        "addresses": len(addresses.found),
        "sessions": seen.sessions,
        "users": seen.users,
        "examples": list(seen.examples),
        "more": addresses.more,
    }


async def _block(call: Call, addresses: Addresses) -> dict[str, Any]:
    """Block the addresses, as the body says. A block that lasts as long already stays as it is."""
    until, why = call.body.expiration_time, call.body.description
    if until and until <= time.time() * 1000:
        raise ApiError(400, f"expirationTime {until} is in the past")
    blocked, count = call.broker.blocked, 0
    for position, address in enumerate(addresses.found, 1):
        if position % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if any(_lasts(known, until) for known in blocked.covering(address)):
            continue
        new = BlockedClient(
            type="IP_ADDRESS",
            value=address,
            expiration_time=until,
            description=why[:MAX_TEXT] if why else None,
        )
        try:
            await blocked.add(new, by=call.by)
        except ValueError:  # meanwhile it has turned out to be a proxy
            continue
        count += 1
    return {"count": count, "more": addresses.more}


def _lasts(block: BlockedClient, until: int) -> bool:
    """Whether a block is in force until then, where 0 is for ever."""
    if block.status != "ACTIVE":
        return False
    return block.expiration_time == 0 or 0 < until <= block.expiration_time
