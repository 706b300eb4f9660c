"""One client of the gateway: what Python knows of it, from its login to its end."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ..model.connection import connection_of_arrival

if TYPE_CHECKING:
    from proxyproto_rs._core import Gateway, Traffic, Welcomed
    from proxyproto_rs._core import Login as ToldLogin

    from ..model.connection import Connection
    from ..model.login import Said
    from ..model.reasons import Refuse
    from ..model.session_record import SessionRecord, Transferred
    from .door import Door


class Changes(TypedDict, total=False):
    """Keywords of `Gateway.admit`."""

    username: str | None
    password: bytes | None
    client_id: str


class Visitor:
    """Implements `sessions.Connected`. The gateway has the connection; here is what was told of it."""

    __slots__ = (
        "_accepted_at",
        "_gateway",
        "_is_settled",
        "_settled",
        "certificate_is_login",
        "connect",
        "connection",
        "detail",
        "door",
        "has_turn",
        "reason",
        "record",
        "refusal",
        "task",
        "token",
        "traffic",
        "username",
    )

    def __init__(self, told: ToldLogin, door: Door, gateway: Gateway) -> None:
        arrival, connect = told.arrival, told.connect
        self.token: int = told.token
        self.door: Door = door
        self.connection: Connection = connection_of_arrival(arrival)
        self.connect: Said = connect
        if not connect.client_id and connect.mqtt_version != "MQTT_5":
            # Servers do not say which id they choose, so we do. In MQTT 5 they do say it.
            self.connect = cast("Said", _ChosenId(connect))
        self.username: str | None = connect.username
        self.certificate_is_login: bool = False
        self.record: SessionRecord | None = None
        self.traffic: Transferred = LiveTraffic(gateway, told.token)
        self.reason: str | None = None
        self.detail: str = ""
        self.refusal: Refuse | None = None
        """Why we have refused it."""
        self.has_turn: bool = False
        """It is the one with its client id that is on its way to a server: see `Entering`."""
        self.task: asyncio.Task[None] | None = None
        """Asks for its password."""
        self._gateway = gateway
        self._accepted_at = arrival.at
        self._settled: asyncio.Future[None] | None = None
        self._is_settled = False

    def age(self) -> float:
        """Return the seconds since the connection was accepted."""
        return max(0.0, time.time() - self._accepted_at)

    def end(self, reason: str, detail: str = "") -> None:
        """End the connection. The gateway keeps the first reason."""
        self._gateway.end(self.token, reason, detail)

    def settle(self) -> None:
        """Let `wait_settled` return."""
        self._is_settled = True
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    async def wait_settled(self) -> None:
        """Wait until the session of an ended client is settled."""
        if self._is_settled:
            return
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settled)

    def changes(self, *, forward_password: bool) -> Changes:
        """Return what goes upstream in place of what the client has sent, as keywords of `Gateway.admit`."""
        changes: Changes = {}
        connect = self.connect
        if self.username != connect.username:
            changes["username"] = self.username
        if not forward_password and connect.password is not None:
            changes["password"] = None
        if isinstance(connect, _ChosenId):
            changes["client_id"] = connect.client_id
        return changes

    def tell(self, record: SessionRecord, welcomed: Welcomed) -> None:
        """Put into the record what the server has said."""
        record.keep_alive_seconds = welcomed.keep_alive
        if welcomed.server_address is not None:
            record.upstream = sys.intern(welcomed.server_address)  # many sessions have the same
            record.upstream_connect_seconds = welcomed.connect_time


class LiveTraffic:
    """What has gone over a session until now. It is asked for anew each time."""

    __slots__ = ("_gateway", "_last", "_token")

    def __init__(self, gateway: Gateway, token: int) -> None:
        self._gateway = gateway
        self._token = token
        self._last: Traffic | None = None

    @property
    def bytes_in(self) -> int:
        """Bytes from the client."""
        return 0 if (now := self._now()) is None else now.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes to the client."""
        return 0 if (now := self._now()) is None else now.bytes_out

    @property
    def packets_in(self) -> int:
        """Packets from the client."""
        return 0 if (now := self._now()) is None else now.packets_in

    @property
    def packets_out(self) -> int:
        """Packets to the client."""
        return 0 if (now := self._now()) is None else now.packets_out

    @property
    def last_seen(self) -> float:
        """When the last byte came from the client, in seconds since 1970."""
        return 0.0 if (now := self._now()) is None else now.last_seen

    def _now(self) -> Traffic | None:
        # Between the session's end and the event that tells of it there is no traffic to ask for.
        self._last = self._gateway.traffic(self._token) or self._last
        return self._last


class _ChosenId:
    """A CONNECT with an empty client id, and the id that we have chosen for it."""

    def __init__(self, connect: Said) -> None:
        self._connect = connect
        self.client_id = f"auto-{secrets.token_hex(8)}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connect, name)
