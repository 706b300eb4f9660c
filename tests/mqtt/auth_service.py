"""A web service that knows users, as `auth: http` asks it."""

from __future__ import annotations

import asyncio  # noqa: TC003 (a dataclass names it)
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class AuthService:
    """What it has been asked, and what it answers each user: a status, and a body if there is one."""

    answers: dict[str, tuple[int, Any]]
    questions: list[Any] = field(default_factory=list)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    """Users whose answer waits for the event."""
    url: str = ""

    def asked_for(self, username: str) -> int:
        """Return how often it has been asked for a user."""
        return sum(question["username"] == username for question in self.questions)

    async def answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        self.questions.append(question)
        if (event := self.slow.get(question["username"])) is not None:
            await event.wait()
        status, body = self.answers[question["username"]]
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve at `url`; after the first time on the same port again."""
        app = web.Application()
        app.router.add_post("/auth", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        port = int(self.url.rpartition(":")[2].partition("/")[0]) if self.url else 0
        try:
            await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/auth"
            yield self.url
        finally:
            await runner.cleanup()
