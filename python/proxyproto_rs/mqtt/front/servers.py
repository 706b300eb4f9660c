"""The front of servers: who knows the passwords is asked here, and then the server that carries the session."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ..backend.embedded.broker import EmbeddedBroker
from ..backend.upstream.kept import KeptUpstream
from ..config.embedded import upstream_of
from ..config.gateway import gateway_options
from ..model.reasons import Refuse
from ..policy.admission import check_limits, check_owner, check_owner_elsewhere
from ..policy.asking import Asking
from .denials import Denials
from .front import Front
from .visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxyproto_rs._core import Login, Welcomed

    from ..config import BrokerConfig
    from ..model.events import Observer
    from ..model.session_record import SessionRecord
    from ..tables.sessions import Kept
    from .door import Check

_PATIENCE = 4  # the part of `auth_timeout` that a login may wait in a queue; the rest is for the check


class Servers(Front):
    """The front of what `backend` names: servers, or the broker of our own. The configuration must have one."""

    def __init__(
        self, config: BrokerConfig, *, checks: Sequence[Check], observer: Observer, node_id: str
    ) -> None:
        self._config = config
        kept = KeptUpstream()
        self._kept: Kept = kept
        super().__init__(
            kept,
            mqtt=config.mqtt,
            limits=config.limits,
            checks=checks,
            observer=observer,
            node_id=node_id,
        )
        kept.sessions = self.sessions
        self._asking: Asking | None = None
        self._broker: EmbeddedBroker | None = None
        self._denials: Denials | None = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the sources of `auth`, and start the gateway's threads.

        Raises:
            PasswordFileError: A file of `auth` cannot be used.
            OSError: There is no thread or descriptor.
        """
        self._asking = await Asking.open(
            self._config.auth,
            time.monotonic,
            self._config.mqtt.auth_timeout / _PATIENCE,
            self._config.limits.logins_at_once,
        )
        if self._config.backend.embedded is not None:
            await self._start_broker()
        await super().start()

    async def _start_broker(self) -> None:
        self._broker = await EmbeddedBroker.start(self._config)
        self._kept = self._broker
        self.sessions.kept_by(self._broker)
        for record in await self._broker.kept():
            self.sessions.restore(record)
        self._denials = Denials(self._broker, self.sessions, self.observer)
        self._telling = asyncio.get_running_loop().create_task(self._denials.run())

    @property
    def cluster_node(self) -> EmbeddedBroker | None:
        """The broker in this process, if it is a node of a cluster. None before `start`."""
        embedded = self._config.backend.embedded
        return self._broker if embedded is not None and embedded.cluster is not None else None

    def change(self, config: BrokerConfig) -> None:
        """Put a new configuration in force, for clients that come from now on. It must have been checked."""
        if self._asking is not None:
            self._asking.change(config.limits.logins_at_once)
        self._config = config
        if self._broker is not None:
            self._broker.change(config.acl)
        self._change(config.mqtt, config.limits)

    def embedded_numbers(self) -> Mapping[str, int]:
        """Return what the embedded broker counts; nothing without one, and once it is closed."""
        return {} if self._broker is None else self._broker.stats()

    def _options(self) -> dict[str, Any]:
        config = self._config
        if self._broker is not None:
            upstream = upstream_of(self._broker.address)
            secret, broker = self._broker.secret, self._broker.core
        else:
            assert config.backend.upstream is not None
            upstream, secret, broker = config.backend.upstream, None, None
        return gateway_options(
            upstream, config.mqtt, config.limits, config.workers, secret=secret, broker=broker
        )

    def _visitor(self, event: Login) -> Visitor:
        return Visitor(event, self._doors[event.arrival.listener], self.gateway)

    def _ask(self, visitor: Visitor) -> None:
        if self._asking is None or visitor.certificate_is_login:
            self._enter(visitor, by_upstream=self._asking is None)
        else:
            visitor.task = asyncio.get_running_loop().create_task(self._asked(visitor, self._asking))

    async def _asked(self, visitor: Visitor, asking: Asking) -> None:
        timeout = self._config.mqtt.auth_timeout
        since = time.monotonic()
        try:
            try:
                good = await asyncio.wait_for(asking.decide(visitor), timeout)
            finally:
                self.observer.asked(time.monotonic() - since)
        except Refuse as refused:
            self._turn_away(visitor, refused)
        except asyncio.TimeoutError:
            self._turn_away(visitor, Refuse("auth-error", f"no answer in {timeout:g} s"))
        except Exception as wrong:
            self.faults.note(wrong, "broker-error: a login could not be checked")
            self._turn_away(visitor, Refuse("auth-error", "a fault of ours"))
        else:
            self._enter(visitor, by_upstream=not good)

    def _enter(self, visitor: Visitor, *, by_upstream: bool) -> None:
        """Let a client in, unless another user's login with its client id is under way: then after that."""
        forward = by_upstream or self._config.forward_password
        self._entering.in_turn(visitor, lambda: self._in_turn(visitor, forward_password=forward))

    def _in_turn(self, visitor: Visitor, *, forward_password: bool) -> None:
        if self._config.mqtt.client_id_owner == "any" or self.sessions.elsewhere is None:
            self._admit(visitor, forward_password=forward_password)
            return
        visitor.task = asyncio.get_running_loop().create_task(
            self._admit_unless_elsewhere(visitor, forward_password=forward_password)
        )

    async def _admit_unless_elsewhere(self, visitor: Visitor, *, forward_password: bool) -> None:
        try:
            await check_owner_elsewhere(visitor, self.sessions)
        except Refuse as refused:
            self._turn_away(visitor, refused)
        except Exception as wrong:
            self.faults.note(wrong, "broker-error: the owner of a client id could not be found")
            self._turn_away(visitor, Refuse("auth-error", "a fault of ours"))
        else:
            self._admit(visitor, forward_password=forward_password)

    def _admit(self, visitor: Visitor, *, forward_password: bool) -> None:
        try:
            if self._config.mqtt.client_id_owner == "refuse":
                check_owner(visitor, self.sessions, self._kept)
            check_limits(visitor, self._config.limits, self._entering)
        except Refuse as refused:
            self._turn_away(visitor, refused)
            return
        self._entering.begin(visitor)
        # If the client has gone meanwhile, an event tells of it.
        self.gateway.admit(visitor.token, **visitor.changes(forward_password=forward_password))

    def _tell(self, visitor: Visitor, record: SessionRecord, event: Welcomed) -> None:
        super()._tell(visitor, record, event)
        if self._broker is not None:
            record.upstream = None  # there is no server elsewhere

    def _finish(self, visitor: Visitor, record: SessionRecord, expiry: int | None) -> None:
        super()._finish(visitor, record, expiry)
        if self._denials is not None:
            self._denials.left(record)

    async def _let_go(self) -> None:
        if self._telling is not None and self._denials is not None and self._broker is not None:
            self._telling.cancel()
            self._denials.tell()
            await self._broker.close()
        if self._asking is not None:
            await self._asking.close()
