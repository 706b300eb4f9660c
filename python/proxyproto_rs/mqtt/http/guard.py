"""Who may ask: the host that the request names, and its token. Every refusal is counted or audited here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..model.networks import parse_address
from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from ..config import HttpConfig
    from .broker import Broker
    from .call import Needs
    from .tokens import Access, Tokens

from .tokens import WrongTokens

_SCHEME = "bearer "
_SHOWN = 200  # characters of a path in the audit log


class Guard:
    """Lets requests in. `http` and `tokens` may be replaced while running."""

    def __init__(
        self, http: HttpConfig, tokens: Tokens, broker: Broker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.http = http
        self.tokens = tokens
        self._broker = broker
        self._wrong = WrongTokens()
        self._clock = clock

    def check_host(self, request: web.Request) -> None:
        """Refuse a request for another host: a page elsewhere may have let its name point here (DNS rebinding).

        An address that the connection came to is no name, so nobody can let it point here.
        """
        named = request.headers.get("Host")
        if named is None:
            return  # HTTP/1.0, which no browser sends
        host = _without_port(named).lower()
        http = self.http
        if host in ("localhost", http.bind.host.lower()) or host in map(str.lower, http.hosts):
            return
        address = parse_address(host)
        if address is not None:
            local = _local_host(request)
            if address.is_loopback and self._is_local(request):
                return
            if local is not None and parse_address(local) == address:
                return
        self._deny(request, "wrong-host")
        raise ApiError(
            421, f"this server does not answer for {host[:100]!r}: add it to http.hosts if it should"
        )

    def access(self, request: web.Request, needs: Needs) -> Access | None:
        """Return what the request's token allows, if that is enough. Raises ApiError."""
        if needs == "nothing" or (needs == "metrics" and not self.http.metrics_auth):
            return None
        token = _token(request)
        if token is None:
            raise ApiError(401, "a token is needed: Authorization: Bearer TOKEN", WWW_Authenticate="Bearer")
        address, now = request.remote or "", self._clock()
        if wait := self._wrong.wait(address, now):
            raise ApiError(429, f"too many wrong tokens from {address}", Retry_After=str(int(wait) + 1))
        access = self.tokens.access_of(token)
        if access is None:
            self._wrong.add(address, now)
            self._deny(request, "wrong-token")
            raise ApiError(401, "the token is wrong", WWW_Authenticate='Bearer error="invalid_token"')
        if needs == "write" and access == "read":
            self._deny(request, "read-only")
            raise ApiError(403, "this token may only read")
        return access

    def _is_local(self, request: web.Request) -> bool:
        address = parse_address(request.remote or "")
        return address is not None and address.is_loopback

    def _deny(self, request: web.Request, reason: str) -> None:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        self._broker.audited(
            "api.denied",
            client=None if peer is None else (str(peer[0]), int(peer[1])),
            reason=reason,
            by=by_of(request),
            method=request.method,
            path=request.path[:_SHOWN],
        )


def by_of(request: web.Request) -> str:
    """Return how the audit log names who asks: tokens have no names, so it is the address."""
    return f"api@{request.remote}"


def _token(request: web.Request) -> str | None:
    for name in ("X-Authorization", "Authorization"):
        value = request.headers.get(name, "")
        if value[: len(_SCHEME)].lower() == _SCHEME:
            return value[len(_SCHEME) :].strip()
    return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if port.isdecimal() and name else host


def _local_host(request: web.Request) -> str | None:
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else None
