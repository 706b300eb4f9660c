"""The gate: all steps between an accepted connection and the backend, one a line (`_way`).

A backend never sees a connection that was not let in, and never sees half a packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Container, Sequence
from functools import partial
from typing import Any, cast

from proxyproto_rs import Listener, get_header

from ..backend.protocol import Backend
from ..config import IdentityConfig, LimitsConfig, MqttConfig, WebSocketConfig
from ..model.connection import connection_of
from ..model.events import Observer, Silent
from ..model.packet_types import CONNACK, CONNECT
from ..model.reasons import REASONS, Refuse
from ..policy.admission import check_limits, check_owner
from ..policy.identity import Identity
from ..tables.sessions import Sessions
from ..telling.faults import Faults
from .client import Client
from .connect import connect_length, decode_connect
from .door import Check, Door
from .id_locks import IdLocks
from .rates import PublishRate
from .refusing import refused_client
from .tls import ProxyTls, info_of, why_failed
from .websocket import open_websocket
from .wire import Wire

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")

_BEHIND = 16 * 1024  # bytes that may be read ahead, behind the largest packet
_END_GRACE = 2.0  # seconds for the last bytes of all clients when the gate closes


class Gate:
    """Lets clients in to a backend.

    Args:
        backend: A Backend, or an amqtt Broker. Start it afterwards: `await gate.backend.start()`.
        mqtt: Deadlines and sizes.
        limits: How many sessions and logins there may be, and how fast a client may publish.
        checks: Decide who may come in. They are asked in this order, before any plugin.
        observer: Is told which clients were refused, came and went.
        node_id: Shown in session records.
        session_expiry: How long the backend keeps sessions, in seconds; 0 means for ever. Shown in session
            records.
    """

    def __init__(
        self,
        backend: Any,
        *,
        mqtt: MqttConfig | None = None,
        limits: LimitsConfig | None = None,
        checks: Sequence[Check] = (),
        observer: Observer | None = None,
        node_id: str = "",
        session_expiry: int = 0,
    ) -> None:
        self.backend: Backend = _backend_of(backend)
        self.backend.denied = self._denied
        self.mqtt: MqttConfig = mqtt or MqttConfig()
        self.limits: LimitsConfig = limits or LimitsConfig()
        self.checks = checks
        self.observer: Observer | Silent = observer or Silent()
        self.sessions: Sessions = Sessions(self.backend, node_id, session_expiry)
        self.faults: Faults = Faults(logger)
        self.publish_delays = 0
        """How often `limits.publish` delayed a publisher."""
        self._locks = IdLocks()
        self._logins = asyncio.Semaphore(self.limits.logins_at_once)
        self._is_bounded: bool = getattr(self.backend, "bounds_logins", False)
        self._clients: set[Client] = set()
        self._servers: list[Any] = []

    async def serve(
        self,
        listener: Listener,
        *,
        name: str,
        websocket: WebSocketConfig | bool = False,
        ssl: ssl.SSLContext | None = None,
        identity: IdentityConfig | None = None,
        trusted: Container[str] = (),
    ) -> Door:
        """Serve the connections of a Listener until `close`, which closes it. The backend must have been started.

        `name` is the listener's name in records and logs. The backend must know it.
        """
        if websocket is True:
            websocket = WebSocketConfig()
        door = Door(name, ssl, websocket or None, Identity(identity or IdentityConfig()), trusted)
        await self.open(listener, door)
        return door

    async def open(self, listener: Listener, door: Door) -> None:
        """Serve a Listener under the rules of `door`. Raises RuntimeError for TLS on a loop that is not asyncio's."""
        if door.tls is not None and not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            # uvloop sometimes loses a ClientHello between connection_made and start_tls.
            raise RuntimeError(f"listener {door.name} has TLS: it needs asyncio's own event loop")
        accepted = partial(self._accepted, door)
        self._servers.append(await listener.create_server(lambda: Wire(accepted, self._room())))

    def change_limits(self, limits: LimitsConfig) -> None:
        """Put new limits in force for clients that come from now on."""
        if limits.logins_at_once != self.limits.logins_at_once:
            self._logins = asyncio.Semaphore(limits.logins_at_once)
        self.limits = limits

    async def close(self) -> None:
        """Stop accepting, end all clients, and wait for them. After 2 seconds their connections are cut off."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for client in self._clients:
            client.end("server-shutdown")
        tasks = [client.task for client in self._clients if client.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_END_GRACE)
            for client in list(self._clients):
                client.wire.abort()
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # the way of one connection

    def _accepted(self, door: Door, wire: Wire) -> None:
        transport = wire.transport
        header, proxy = get_header(transport), transport.get_extra_info("proxy_peername")
        client = Client(wire, connection_of(transport, door.name, header, proxy), self, door)
        if self.limits.max_unauthenticated and door.unauthenticated >= self.limits.max_unauthenticated:
            busy = Refuse("busy", f"{door.unauthenticated} have not logged in yet")
            self.observer.refused(refused_client(client, busy))
            wire.abort()
            return
        if door.tls is not None:
            wire.hold()
        door.unauthenticated += 1
        self._clients.add(client)
        client.task = wire.loop.create_task(self._serve(client))

    async def _serve(self, client: Client) -> None:
        try:
            await self._way(client)
        except Refuse as refused:
            self._refuse(client, refused)
        except asyncio.CancelledError:
            # Either the client's own timer has cancelled it, or somebody else ends this task.
            if not client.forced:
                client.wire.abort()
                raise
        except Exception as wrong:  # a fault with one connection must not affect others
            host, port = client.connection.client
            self.faults.note(
                wrong, f"broker-error client={host}:{port} listener={client.door.name}: connection ended"
            )
            client.end("broker-error", repr(wrong))
        finally:
            self._settle(client)
            try:
                await client.wire.close()
            finally:
                self._clients.discard(client)

    async def _way(self, client: Client) -> None:
        await self._shake_hands(client)
        await self._upgrade(client)
        await self._read_connect(client)
        self._identify(client)
        self._check(client)
        await self._authenticate(client)
        await self._locks.acquire(client.connect.client_id)
        client.locked = True
        self._check_again(client)
        await self._take_over(client)
        await self.backend.carry(client)

    async def _shake_hands(self, client: Client) -> None:
        context = client.door.tls
        if context is not None:
            try:
                await client.wire.start_tls(context, self.mqtt.tls_timeout)
            except OSError as wrong:
                raise Refuse("tls-failed", why_failed(wrong)) from None
            client.ssl_object = client.wire.extra_info("ssl_object")
            client.connection.tls = info_of(client.ssl_object)
        elif client.connection.tls is not None:
            assert client.connection.header is not None
            assert client.connection.header.ssl is not None
            client.ssl_object = ProxyTls(client.connection.header.ssl)

    async def _upgrade(self, client: Client) -> None:
        options = client.door.websocket
        if options is None:
            return
        with client.deadline(self.mqtt.ws_timeout, "ws-failed", "timeout"):
            await open_websocket(client, options, self.mqtt.max_packet_size, self._check_forwarded)

    async def _read_connect(self, client: Client) -> None:
        wire, limit = client.wire, self.mqtt.max_connect_size
        with client.deadline(self.mqtt.connect_timeout, "no-connect", "no whole CONNECT in time"):
            while True:
                client.refuse_header()
                size = connect_length(wire.buffer, limit)
                if size is not None and len(wire.buffer) >= size:
                    break
                if wire.eof:
                    raise Refuse("closed-early", f"after {len(wire.buffer)} bytes")
                await client.more()
        client.greeted = True
        client.door.counts.packets_in[CONNECT] += 1
        client.connect = decode_connect(wire.take(size))
        client.username = client.connect.username

    def _identify(self, client: Client) -> None:
        identity = client.door.identity
        name = identity.name_of(client.connection, client.ssl_object)
        identity.check_client_id(name, client.connect.client_id)
        if name is not None and identity.use_as == "username":
            client.username = name
            client.certificate_is_login = True

    def _check(self, client: Client) -> None:
        for check in self.checks:
            check(client)
        check_limits(client, self.limits, self.sessions)

    async def _authenticate(self, client: Client) -> None:
        try:
            await asyncio.wait_for(self._ask(client), self.mqtt.auth_timeout)
        except asyncio.TimeoutError:
            raise Refuse("auth-error", f"no answer in {self.mqtt.auth_timeout:g} s") from None
        client.still_there()

    async def _ask(self, client: Client) -> None:
        async with contextlib.nullcontext() if self._is_bounded else self._logins:
            since = client.wire.loop.time()
            try:
                await self.backend.authenticate(client)
            finally:
                self.observer.asked(client.wire.loop.time() - since)
            if client.connect.will is not None:
                await self.backend.check_will(client)

    def _check_again(self, client: Client) -> None:
        """Check again what may have changed while the plugins were asked. From here on the client id is ours."""
        if self.mqtt.client_id_owner == "refuse":
            check_owner(client, self.sessions, self.backend)
        check_limits(client, self.limits, self.sessions)

    async def _take_over(self, client: Client) -> None:
        old = self.sessions.client(client.connect.client_id)
        if old is not None:
            if client.wire.eof:
                raise Refuse("closed-early", "the client has gone, so it does not take the session over")
            old.end("taken-over")
            await old.wait_settled()

    def _room(self) -> int:
        # The largest packet fits with room behind it, so reading never stops before a packet is whole.
        return max(self.mqtt.max_packet_size, self.mqtt.max_connect_size) + _BEHIND

    # what follows from the result

    def welcomed(self, client: Client) -> None:
        """Open the client's session. The client calls this when the backend lets it in, before the CONNACK is sent."""
        client.door.unauthenticated -= 1
        client.record = self.sessions.begin(client)
        if self.limits.publish:
            client.rate = PublishRate(self.limits.publish, client.wire.loop.time())
        self._unlock(client)
        self.observer.connected(client.record)

    def _settle(self, client: Client) -> None:
        self._unlock(client)
        record = client.record
        if record is None:
            client.door.unauthenticated -= 1
        else:
            client.end("broker-error")  # if it has no reason yet
            self.sessions.finish(client, record)
        client.settle()
        if record is not None:
            self.observer.disconnected(record)

    def _unlock(self, client: Client) -> None:
        if client.locked:
            client.locked = False
            self._locks.release(client.connect.client_id)

    def _refuse(self, client: Client, refused: Refuse) -> None:
        if client.record is not None:  # the backend raised after its CONNACK
            client.end("broker-error", refused.detail)
            return
        known = REASONS.get(refused.reason)
        if known is None:  # we have ended it, as at a shutdown
            return
        if client.greeted and known.connack is not None:
            client.door.counts.packets_out[CONNACK] += 1
            client.wire.write(bytes((CONNACK << 4, 2, 0, known.connack)))
        self.observer.refused(refused_client(client, refused))

    def _check_forwarded(self, client: Client) -> None:
        if client.connection.address_source == "forwarded" and client.door.check_address is not None:
            client.door.check_address(client.connection.client[0])

    def _denied(self, client_id: str, action: Any, topic: str) -> None:
        record = self.sessions.record(client_id)
        if record is not None and record.connected:
            self.observer.denied(record, action, topic)


def _backend_of(given: Any) -> Backend:
    if hasattr(given, "carry"):
        return cast("Backend", given)
    from ..backend.amqtt.backend import AmqttBackend

    return AmqttBackend(given)
