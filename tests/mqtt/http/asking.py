"""A broker with its API, and a client of the API."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from pydantic import TypeAdapter

from mqtt.peers import Broker, running
from proxyproto_rs.mqtt.http.application import ROUTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN, READ_TOKEN = "the-token-of-operators", "one-that-may-only-read"
ANSWERS: dict[tuple[str, str], TypeAdapter[Any]] = {
    (route.method, route.path): TypeAdapter(route.answer) for route in ROUTES
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Api:
    """Asks the API of a broker. Every good answer must have the shape that the document promises."""

    url: str
    session: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = TOKEN,
        json: Any = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        **parameters: Any,
    ) -> Answer:
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.request(
            method,
            self.url.rstrip("/") + path,
            params={name: str(value) for name, value in parameters.items()},
            headers={**sent, **(headers or {})},
            json=json,
            data=data,
            ssl=False,
        ) as response:
            answer = Answer(response.status, response.headers, await response.text())
        if answer.status >= 400 and method != "HEAD":
            if answer.headers["Content-Type"].startswith("application/json") and path not in (
                "/healthz",
                "/readyz",
            ):
                assert answer.json.keys() == {"status", "message", "errorCode"}
                assert answer.json["status"] == answer.status
        elif answer.status == 200 and (method, path) in ANSWERS:
            ANSWERS[method, path].validate_json(answer.text, strict=False)
        return answer

    async def get(self, path: str, **parameters: Any) -> Any:
        answer = await self.ask("GET", path, **parameters)
        assert answer.status == 200, answer.text
        return answer.json

    async def fails(self, status: int, method: str, path: str, **keywords: Any) -> str:
        """Ask what must be refused; return the message."""
        answer = await self.ask(method, path, **keywords)
        assert answer.status == status, answer.text
        return str(answer.json["message"])


@contextlib.asynccontextmanager
async def serving(http: dict[str, Any] | None = None, **sections: Any) -> AsyncIterator[tuple[Broker, Api]]:
    """A broker whose API has two tokens, and a client of it."""
    section = {"bind": "127.0.0.1:0", "token": TOKEN, "read_token": READ_TOKEN, **(http or {})}
    async with running(http=section, **sections) as broker:
        assert broker.service.http is not None
        # A connection for each request, so that none is left when the test looks for leaks.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            yield broker, Api(broker.service.http.url, session)
