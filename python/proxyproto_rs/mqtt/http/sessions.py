"""Sessions: TBMQ's calls, and ending many at once."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from pydantic import create_model

from ..model.session_query import SessionQuery
from ..model.session_record import SessionRecord
from . import matching
from .answers import Done, PageOf, Session, SessionCounts, SessionDetail
from .broker import Broker
from .call import Call, Route
from .errors import ApiError
from .queries import ClientId, Parameters, SessionOf, SessionParameters, query_of

_ROWS = 250
"""How many rows are written between two turns of the event loop. They take 0.6 ms of processor time."""


SessionsOrOne: type[Parameters] = create_model(
    "SessionsOrOne", __base__=SessionParameters, client_id=(str | None, None)
)
"""A list, or the one session of `clientId`."""


async def find(call: Call) -> Any:
    """List sessions, or show the one that is named."""
    parameters = call.parameters
    if getattr(parameters, "client_id", None) is not None:
        return await show(call)
    return await page_of(call.broker, query_of(SessionQuery, parameters))


async def page_of(broker: Broker, query: SessionQuery) -> dict[str, Any]:
    """Return a page of sessions, each with whether it is blocked."""
    page = await broker.sessions.find(query)
    rows = []
    for number, record in enumerate(page.data, 1):
        rows.append({**record.to_json(), "isBlocked": _is_blocked(broker, record)})
        if number % _ROWS == 0:
            await asyncio.sleep(0)
    return {
        "data": rows,
        "totalPages": page.total_pages,
        "totalElements": page.total_elements,
        "hasNext": page.has_next,
        **({} if page.cursor is None else {"cursor": page.cursor}),
    }


def _is_blocked(broker: Broker, record: SessionRecord) -> bool:
    return broker.blocked.covers(record.client_id, record.username, record.connection.client[0]) is not None


async def show(call: Call) -> Any:
    """Show one session with its subscriptions."""
    view = await call.broker.sessions.get(call.parameters.client_id)
    if view is None:
        raise _no_session(call.parameters.client_id)
    return {**view.to_json(), "isBlocked": _is_blocked(call.broker, view.record)}


async def counts(call: Call) -> Any:
    """Count the sessions of all nodes that share the store."""
    connected, rows = await call.broker.sessions.count()
    return {
        "connectedCount": connected,
        "disconnectedCount": max(0, rows - connected),
        "totalCount": max(rows, connected),
    }


async def disconnect(call: Call) -> Any:
    """End a client's connection."""
    client_id, session_id = call.parameters.client_id, call.parameters.session_id
    if not await call.broker.sessions.disconnect(client_id, session_id, by=call.by):
        raise ApiError(
            404, f"client {client_id[:100]!r} is not connected" + (" with that session" if session_id else "")
        )
    return {"count": 1}


async def disconnect_all(call: Call) -> Any:
    """End the connections of all sessions that match the filters."""
    matching.require_filter(call.parameters, "end every connection")
    sessions = call.broker.sessions
    query = dataclasses.replace(_query_of(call), connected_status_list=("CONNECTED",))
    found: list[tuple[str, str]] = []
    async for rows, _ in matching.rows_of(sessions.find, query):
        found += [(record.client_id, record.session_id) for record in rows]
    ended = await asyncio.gather(
        *(sessions.disconnect(client_id, session_id, by=call.by) for client_id, session_id in found)
    )
    return {"count": sum(ended)}


async def _addresses(call: Call) -> matching.Addresses:
    matching.require_filter(call.parameters, "block every client")
    find = call.broker.sessions.find
    return await matching.addresses_of(call.broker, find, _query_of(call), matching.address_of_session)


def _query_of(call: Call) -> SessionQuery:
    return dataclasses.replace(query_of(SessionQuery, call.parameters), cursor=None)


async def remove(call: Call) -> Any:
    """Forget a session that is kept."""
    client_id, session_id = call.parameters.client_id, call.parameters.session_id
    sessions = call.broker.sessions
    if session_id is not None:
        view = await sessions.get(client_id)
        if view is None or view.record.session_id != session_id:
            raise _no_session(client_id)
    try:
        removed = await sessions.remove(client_id, by=call.by)
    except ValueError as wrong:
        raise ApiError(409, str(wrong)) from None
    if not removed:
        raise _no_session(client_id)
    return {"count": 1}


def _no_session(client_id: str) -> ApiError:
    return ApiError(404, f"there is no session of client {client_id[:100]!r}")


ROUTES = (
    Route("GET", "/api/v2/client-session", find, PageOf[Session], "List sessions", SessionParameters),
    Route(
        "GET",
        "/api/client-session",
        find,
        PageOf[Session] | SessionDetail,
        "List sessions, or show the one of `clientId`",
        SessionsOrOne,
        statuses=(404,),
    ),
    Route(
        "GET",
        "/api/client-session/by-client-id",
        show,
        SessionDetail,
        "Show a session",
        ClientId,
        statuses=(404,),
    ),
    Route("GET", "/api/client-session/info", counts, SessionCounts, "Count the sessions"),
    Route(
        "DELETE",
        "/api/client-session/disconnect",
        disconnect,
        Done,
        "End a client's connection",
        SessionOf,
        needs="write",
        statuses=(404,),
    ),
    Route(
        "DELETE",
        "/api/v2/client-session/disconnect",
        disconnect_all,
        Done,
        f"End the connections of all sessions that match, at most {matching.ROWS}",
        SessionParameters,
        needs="write",
    ),
    *matching.block_routes("/api/v2/client-session", "sessions", SessionParameters, _addresses),
    Route(
        "DELETE",
        "/api/client-session/remove",
        remove,
        Done,
        "Forget a session that is kept",
        SessionOf,
        needs="write",
        statuses=(404, 409),
    ),
)
