"""`GET /api/events`: what the audit log says, as it happens, as Server-Sent Events.

A listener that does not read misses events, and is told how many. It holds up nobody, and no event is kept for it
beyond `feed.WAITING`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..telling.feed import Subscription
    from .broker import Broker
    from .guard import Guard

_LOOK = 0.5  # seconds between looks whether the listener is still there
_IDLE = 30  # looks without an event; then a comment tells proxies and listeners that the connection lives
_STUCK = 60.0  # seconds; then a listener that takes nothing is left


def handler(
    broker: Broker, guard: Guard, headers: Mapping[str, str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler of the path."""

    async def listen(request: web.Request) -> web.StreamResponse:
        guard.access(request, "read")
        subscription = broker.feed.subscribe()
        if subscription is None:
            raise ApiError(503, "too many listen to events already", Retry_After="60")
        try:
            response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                await _tell(request, response, subscription)
            return response
        finally:
            broker.feed.unsubscribe(subscription)

    return listen


async def _tell(request: web.Request, response: web.StreamResponse, subscription: Subscription) -> None:
    await _write(response, b": connected\n\n")
    idle = 0
    while not subscription.closed and request.transport is not None and not request.transport.is_closing():
        events, dropped = await subscription.take(_LOOK)
        idle = 0 if events else idle + 1
        if idle == _IDLE:
            idle = 0
            await _write(response, b": alive\n\n")
        for event in events:
            await _write(response, event)
        if dropped:
            await _write(response, f"event: dropped\ndata: {json.dumps({'count': dropped})}\n\n".encode())


async def _write(response: web.StreamResponse, data: bytes) -> None:
    await asyncio.wait_for(response.write(data), _STUCK)
