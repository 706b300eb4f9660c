"""The front of a broker in this process: its plugins are asked, and the gateway hands it each client on a stream.

A backend never sees a client that was not let in, and never sees half a packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as openssl
import time
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any, cast

from proxyproto_rs import Listener
from proxyproto_rs._core import Ended

from ..backend.protocol import Backend
from ..config import IdentityConfig, LimitsConfig, MqttConfig, TlsConfig, WebSocketConfig
from ..config.gateway import in_process_options
from ..model.events import Observer, Silent
from ..model.reasons import Refuse
from ..policy.admission import check_limits, check_owner, check_owner_elsewhere
from ..policy.identity import Identity
from .channels import channel
from .client import Client
from .door import Check, Door
from .front import Front

if TYPE_CHECKING:
    from proxyproto_rs._core import Login, Refused, Welcomed

    from .visitor import Visitor

_SETTLE = 5.0  # seconds for the backend to let go of an ended client


class Gate(Front):
    """Lets clients in to a backend.

    Typical use, with an amqtt Broker whose listeners are of type external::

        gate = Gate(broker)  # before the broker is started
        await broker.start()
        await gate.serve(listener, name="tcp")
        ...
        await gate.close()
        await broker.shutdown()

    Args:
        backend: A Backend, or an amqtt Broker. Start it afterwards: `await gate.backend.start()`.
        mqtt: Deadlines and sizes.
        limits: How many sessions and logins there may be, and how fast a client may publish.
        checks: Decide who may come in. They are asked in this order, before any plugin.
        observer: Is told which clients were refused, came and went.
        node_id: Shown in session records.
        session_expiry: How long the backend keeps sessions, in seconds; 0 means for ever. Shown in session
            records.
        workers: How many threads carry the connections; 0 means one for each core.
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
        workers: int = 0,
    ) -> None:
        self.backend: Backend = _backend_of(backend)
        self.backend.denied = self._denied
        super().__init__(
            self.backend,
            mqtt=mqtt or MqttConfig(),
            limits=limits or LimitsConfig(),
            checks=checks,
            observer=observer or Silent(),
            node_id=node_id,
            session_expiry=session_expiry,
        )
        self._workers = workers
        self._logins = asyncio.Semaphore(self.limits.logins_at_once)
        self._is_bounded: bool = getattr(self.backend, "bounds_logins", False)
        self._has_started = False

    async def serve(
        self,
        listener: Listener,
        *,
        name: str,
        websocket: WebSocketConfig | bool = False,
        ssl: TlsConfig | openssl.SSLContext | None = None,
        identity: IdentityConfig | None = None,
        trusted: Container[str] = (),
    ) -> Door:
        """Serve the connections of a Listener until `close`, which closes it. The backend must have been started.

        Args:
            listener: A Listener that nobody else accepts from.
            name: Its name in records and logs. The backend must know it.
            websocket: The options of the upgrade request, or True for those that are usual.
            ssl: The options of a listener's `tls` section. An ssl.SSLContext works too, and costs more: Python's
                OpenSSL then does the handshakes and the records, one at a time.
            identity: What a client's certificate says about who it is.
            trusted: Peers that may close without a byte, as in a health check, and leave no trace.

        Raises:
            ValueError: A file of `ssl` cannot be used. The text begins with the option's name.
            OSError: There is no thread or descriptor.
        """
        if websocket is True:
            websocket = WebSocketConfig()
        await self.start()
        door = Door(name, Identity(identity or IdentityConfig()), trusted)
        door.channel = channel(ssl, websocket or None, self.mqtt.max_packet_size)
        self.open(listener, door)
        return door

    async def start(self) -> None:
        """Start the gateway's threads, unless that is done. Raises OSError if there is no thread or descriptor."""
        if not self._has_started:
            await super().start()
            self._has_started = True

    def change(self, mqtt: MqttConfig, limits: LimitsConfig) -> None:
        """Put other options in force, for clients that come from now on."""
        if limits.logins_at_once != self.limits.logins_at_once:
            self._logins = asyncio.Semaphore(limits.logins_at_once)
        self._change(mqtt, limits)

    async def close(self) -> None:
        """Stop accepting, end all clients, and wait for them. A second call does nothing."""
        for listener in self._listeners.values():
            listener.close()
        if self._has_started:
            await super().close()

    def _options(self) -> dict[str, Any]:
        return in_process_options(self.mqtt, self.limits, self._workers)

    def _visitor(self, event: Login) -> Client:
        return Client(event, self._doors[event.arrival.listener], self.gateway, self.mqtt)

    # the way of one login

    def _ask(self, visitor: Visitor) -> None:
        client = cast("Client", visitor)
        client.task = asyncio.get_running_loop().create_task(self._serve(client))

    async def _serve(self, client: Client) -> None:
        try:
            await self._way(client)
        except Refuse as refused:
            self._refuse(client, refused)
        except asyncio.CancelledError:
            pass  # an event has told of its end, and cancelled this
        except Exception as wrong:  # a fault with one connection must not affect others
            host, port = client.connection.client
            self.faults.note(
                wrong, f"broker-error client={host}:{port} listener={client.door.name}: connection ended"
            )
            self._refuse(client, Refuse("broker-error", repr(wrong)))
        finally:
            client.close_stream()

    async def _way(self, client: Client) -> None:
        await self._authenticate(client)
        await self._wait_for_turn(client)
        if self.mqtt.client_id_owner == "refuse":
            await check_owner_elsewhere(client, self.sessions)
        self._check_again(client)
        await self._take_over(client)
        await client.open_stream()
        client.is_carried = True
        await self.backend.carry(client)
        if not client.ended:
            raise Refuse("broker-error", "the broker has let go of it")

    async def _authenticate(self, client: Client) -> None:
        try:
            await asyncio.wait_for(self._asked(client), self.mqtt.auth_timeout)
        except asyncio.TimeoutError:
            raise Refuse("auth-error", f"no answer in {self.mqtt.auth_timeout:g} s") from None

    async def _asked(self, client: Client) -> None:
        async with contextlib.nullcontext() if self._is_bounded else self._logins:
            since = time.monotonic()
            try:
                await self.backend.authenticate(client)
            finally:
                self.observer.asked(time.monotonic() - since)
            if client.connect.will is not None:
                await self.backend.check_will(client)

    async def _wait_for_turn(self, client: Client) -> None:
        """Wait until no other client with this id is on its way to the broker."""
        turn = asyncio.get_running_loop().create_future()
        self._entering.in_turn(client, lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _check_again(self, client: Client) -> None:
        """Check again what may have changed while the plugins were asked. From here on the client id is ours."""
        if self.mqtt.client_id_owner == "refuse":
            check_owner(client, self.sessions, self.backend)
        check_limits(client, self.limits, self._entering)
        self._entering.begin(client)

    async def _take_over(self, client: Client) -> None:
        old = self.sessions.client(client.connect.client_id)
        if old is not None:
            if not self.gateway.can_send(client.token):
                raise Refuse("closed-early", "the client has gone, so it does not take the session over")
            old.end("taken-over")
            await old.wait_settled()

    # what follows

    def _refuse(self, client: Client, refused: Refuse) -> None:
        if client.is_welcome:
            client.end("broker-error", refused.detail)
        else:
            self._turn_away(client, refused)

    def _welcomed(self, event: Welcomed) -> None:
        super()._welcomed(event)
        cast("Client", self._visitors[event.token]).wake()

    def _refused(self, event: Refused) -> None:
        self._once_let_go(event, super()._refused)

    def _ended(self, event: Ended) -> None:
        self._once_let_go(event, super()._ended)

    def _once_let_go(self, event: Refused | Ended, handle: Callable[[Any], None]) -> None:
        """Handle the end of a client when the backend has let go of it too: then its session is settled."""
        client = None if event.token is None else cast("Client", self._visitors[event.token])
        if client is None or client.task is None or client.task.done():
            handle(event)
            return
        task = client.task
        if client.is_carried and not isinstance(event, Ended):
            # It has gone before its CONNACK. Afterwards the gateway itself gives the backend time.
            client.over(event.reason)
            asyncio.get_running_loop().call_later(_SETTLE, task.cancel)
        else:
            task.cancel()
        task.add_done_callback(lambda _: self._attempt(handle, event))

    async def _let_go(self) -> None:
        tasks = [visitor.task for visitor in self._visitors.values() if visitor.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # their last events are handled behind them
        self.backend.denied = _nobody_told  # amqtt keeps its brokers for ever, and they shall not keep us

    def _denied(self, client_id: str, action: Any, topic: str) -> None:
        record = self.sessions.record(client_id)
        if record is not None and record.connected:
            self.observer.denied(record, action, topic)


def _nobody_told(client_id: str, action: Any, topic: str) -> None:
    """Do nothing."""


def _backend_of(given: Any) -> Backend:
    if hasattr(given, "carry"):
        return cast("Backend", given)
    from ..backend.amqtt.backend import AmqttBackend

    return AmqttBackend(given)
