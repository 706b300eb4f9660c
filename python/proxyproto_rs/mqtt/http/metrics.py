"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from ..collector import registry
from ..store.protocol import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .broker import Broker
    from .guard import Guard


def handler(broker: Broker, guard: Guard) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler of the path."""

    async def scrape(request: web.Request) -> web.Response:
        guard.access(request, "metrics")
        with contextlib.suppress(StoreError):  # then it is the number of the last purge
            await broker.unauthorized.count()
        sessions = await broker.sources.count_sessions()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(
            body=encode(registry(broker.sources, sessions)), headers={"Content-Type": content_type}
        )

    return scrape
