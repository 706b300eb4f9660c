"""A local API of CrowdSec for tests: it answers /v1/decisions/stream with what the test puts into it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

KEY = "c2VjcmV0LWtleQ"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ids = itertools.count(1)


def decision(
    value: str, *, duration: str = "3h59m58.123s", scope: str = "Ip", **other: Any
) -> dict[str, Any]:
    """A decision as the API writes it."""
    return {
        "duration": duration,
        "id": next(_ids),
        "origin": "CAPI",
        "scenario": "crowdsecurity/ssh-bf",
        "scope": scope,
        "type": "ban",
        "uuid": "1e2f",
        "value": value,
        **other,
    }


class Lapi:
    """`answers` are given one after the other; the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[dict[str, str]] = []
        """The parameters of each request."""
        self.url = ""
        self._came = asyncio.Event()

    async def times(self, count: int) -> None:
        """Wait until it was asked so often."""
        while len(self.asked) < count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 10)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self._came.set()
        if request.headers.get("X-Api-Key") != KEY:
            return web.json_response({"message": "access forbidden"}, status=403)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        if isinstance(answer, int):
            return web.json_response({"message": "no"}, status=answer)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        new, deleted = answer
        return web.Response(
            body=json.dumps({"deleted": deleted, "new": new}).encode(), content_type="application/json"
        )


@contextlib.asynccontextmanager
async def serving(*answers: Any) -> AsyncIterator[Lapi]:
    """Serve on loopback."""
    lapi = Lapi()
    lapi.answers += answers
    app = web.Application()
    app.router.add_get("/v1/decisions/stream", lapi.answer)
    async with serving_app(app) as lapi.url:
        yield lapi


@contextlib.asynccontextmanager
async def serving_app(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on loopback, and give its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
