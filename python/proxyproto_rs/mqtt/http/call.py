"""One request as a handler of the API sees it, and one entry of the table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from .broker import Broker
from .queries import Nothing
from .tokens import Access

Needs = Literal["nothing", "metrics", "read", "write"]
"""The token that a request needs. `metrics` is none, unless `http.metrics_auth` is set."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose token is right and whose parameters are valid."""

    broker: Broker
    parameters: Any
    """An instance of the route's `parameters`."""
    body: Any
    """An instance of the route's `body`; None if there is none."""
    by: str
    """Who asks, for the audit log."""
    access: Access | None


@dataclass(frozen=True, slots=True)
class Result:
    """An answer whose status is not 200."""

    status: int
    value: Any


Handler = Callable[[Call], Awaitable[Any]]
"""Returns what JSON can hold, or a Result. Raises ApiError, StoreError."""


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of request: all that the server and the OpenAPI document know of it."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answer: Any
    summary: str
    parameters: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    needs: Needs = "read"
    statuses: tuple[int, ...] = ()
    """Further statuses of the answer's shape, or of an error, that are to be expected."""
