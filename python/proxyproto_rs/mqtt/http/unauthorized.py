"""Refused clients: TBMQ's calls."""

from __future__ import annotations

from typing import Any

from ..model.paging import to_json
from ..model.records import UnauthorizedClient, UnauthorizedQuery
from . import matching
from .answers import Done, PageOf, UnauthorizedRow
from .broker import Broker
from .call import Call, Route
from .errors import ApiError
from .queries import ClientId, UnauthorizedOf, UnauthorizedParameters, query_of


async def find_or_show(call: Call) -> Any:
    """List refused clients. As in TBMQ, `clientId` without a page names one, and shows its newest row."""
    only_named = call.parameters.model_fields_set == {"client_id"}
    return await (show(call) if only_named else find(call))


async def find(call: Call) -> Any:
    """List refused clients."""
    return await page_of(call.broker, query_of(UnauthorizedQuery, call.parameters))


async def page_of(broker: Broker, query: UnauthorizedQuery) -> dict[str, Any]:
    """Return a page of refused clients, each with whether it is blocked."""
    page = await broker.unauthorized.find(query)
    return {**to_json(page), "data": [_row(broker, row) for row in page.data]}


def _row(broker: Broker, row: UnauthorizedClient) -> dict[str, Any]:
    block = broker.blocked.covers(row.client_id, row.username, row.ip_address)
    return {**to_json(row), "isBlocked": block is not None}


async def show(call: Call) -> Any:
    """Show the newest row of a client id."""
    client_id = call.parameters.client_id
    # The filter of the table matches anywhere in the id.
    page = await call.broker.unauthorized.find(UnauthorizedQuery(client_id=client_id, page_size=1000))
    row = next((row for row in page.data if row.client_id == client_id), None)
    if row is None:
        raise ApiError(404, f"there is no refused client {client_id[:100]!r}")
    return _row(call.broker, row)


async def delete(call: Call) -> Any:
    """Delete the rows of a client id, of an address, or of both; without either, all."""
    client_id, ip = call.parameters.client_id, call.parameters.ip_address
    table = call.broker.unauthorized
    if client_id is None and ip is None:
        return {"count": await table.delete_all(by=call.by)}
    count = await table.delete(client_id, ip, by=call.by)
    if not count:
        raise ApiError(404, "there is no such row")
    return {"count": count}


async def delete_one(call: Call) -> Any:
    """Delete the rows of a client id."""
    count = await call.broker.unauthorized.delete(call.parameters.client_id, by=call.by)
    if not count:
        raise ApiError(404, "there is no such row")
    return {"count": count}


async def _addresses(call: Call) -> matching.Addresses:
    matching.require_filter(call.parameters, "block every address that was ever refused")
    query = query_of(UnauthorizedQuery, call.parameters)
    find = call.broker.unauthorized.find
    return await matching.addresses_of(call.broker, find, query, matching.address_of_refusal)


_ROWS = PageOf[UnauthorizedRow]

ROUTES = (
    Route(
        "GET",
        "/api/unauthorized/client",
        find_or_show,
        _ROWS | UnauthorizedRow,
        "List refused clients, or show the one of `clientId`",
        UnauthorizedParameters,
        statuses=(404,),
    ),
    Route("GET", "/api/unauthorized/client/v2", find, _ROWS, "List refused clients", UnauthorizedParameters),
    Route(
        "GET",
        "/api/unauthorized/client/by-client-id",
        show,
        UnauthorizedRow,
        "Show the newest row of a client id",
        ClientId,
        statuses=(404,),
    ),
    Route(
        "DELETE",
        "/api/unauthorized/client",
        delete,
        Done,
        "Delete rows of refused clients; without a parameter, all of them",
        UnauthorizedOf,
        needs="write",
        statuses=(404,),
    ),
    Route(
        "DELETE",
        "/api/unauthorized/client/by-client-id",
        delete_one,
        Done,
        "Delete the rows of a client id",
        ClientId,
        needs="write",
        statuses=(404,),
    ),
    *matching.block_routes(
        "/api/unauthorized/client/v2", "refused clients", UnauthorizedParameters, _addresses
    ),
)
