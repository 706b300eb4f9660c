"""The gate without the rest of the broker: with an amqtt Broker of the user's own behind it, and with another backend."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from amqtt.broker import Broker

from proxyproto_rs import Listener
from proxyproto_rs.mqtt import Backend, Gate, RefusedClient
from proxyproto_rs.mqtt.model.events import Silent
from proxyproto_rs.mqtt.model.reasons import Refuse

from .. import plugins
from ..peers import (
    CLIENT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    WELCOME,
    connack,
    connect,
    log_in,
    publish,
    subscribe,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from interop.certificates import Certificates
    from proxyproto_rs.mqtt import Link
    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.events import Action

TRUSTED = ["127.0.0.0/8"]


class Echo:
    """A backend that sends each client what it has published, and nothing else."""

    def __init__(self) -> None:
        self.denied: Callable[[str, Action, str], None] = lambda client_id, action, topic: None
        self.kept: set[str] = set()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def authenticate(self, link: Link) -> None:
        if link.connect.password != plugins.PASSWORD.encode():
            raise Refuse("bad-credentials", "Echo says no")

    async def check_will(self, link: Link) -> None:
        raise Refuse("access-denied", "Echo takes no wills")

    async def carry(self, link: Link) -> None:
        if link.username == "late":
            raise Refuse("auth-error", "Echo has changed its mind")
        link.welcome()
        link.push(WELCOME)
        self.kept.add(link.connect.client_id)
        while (packet := await link.pull()) is not None:
            if packet == PINGREQ:
                link.push(PINGRESP)
            elif packet[0] >> 4 == 3:
                link.push(packet)
            else:
                raise RuntimeError("Echo knows no other packets")

    def has_session(self, client_id: str) -> bool:
        return client_id in self.kept

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        return {}

    async def forget(self, client_id: str) -> None:
        self.kept.discard(client_id)


class Refusals(Silent):
    """Keeps the clients that were refused."""

    def __init__(self) -> None:
        self.seen: list[RefusedClient] = []

    def refused(self, refused: RefusedClient) -> None:
        self.seen.append(refused)


@contextlib.asynccontextmanager
async def serving(backend: Any, **options: Any) -> AsyncIterator[tuple[Gate, Address]]:
    gate = Gate(backend, **options)
    await gate.backend.start()
    listener = Listener("127.0.0.1", 0, trusted=TRUSTED)
    try:
        await gate.serve(listener, name="tcp")
        yield gate, listener.getsockname()
    finally:
        await gate.close()
        await gate.backend.stop()


async def test_another_backend_behind_the_same_gate() -> None:
    backend: Backend = Echo()
    async with serving(backend) as (gate, address), log_in(address) as client:
        assert client.connack == WELCOME
        assert await client.ask(publish("a", b"x")) == publish("a", b"x")
        assert await client.ask(PINGREQ) == PINGRESP
        (record,) = (await gate.sessions.find()).data
        assert record.connection.client == CLIENT
        client.send(DISCONNECT)
        assert await client.end() == b""
        assert await gate.sessions.remove("dev") is True


REFUSED = [
    (connect(password=b"x"), 5, "bad-credentials"),
    (connect(username="late"), 3, "auth-error"),
]


@pytest.mark.parametrize(("how", "code", "reason"), REFUSED, ids=["at-authenticate", "at-carry"])
async def test_a_backend_may_refuse(how: Any, code: int, reason: str) -> None:
    observer = Refusals()
    async with serving(Echo(), observer=observer) as (_, address), log_in(address, how) as client:
        assert client.connack == connack(code)
        assert await client.end() == b""
    assert [(refused.reason, refused.client_id, refused.password_provided) for refused in observer.seen] == [
        (reason, "dev", True)
    ]


async def test_a_backend_that_fails_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(Echo()) as (gate, address),
        log_in(address, connect("one", clean_session=False)) as one,
        log_in(address, connect("two")) as two,
    ):
        one.send(subscribe("a"))
        assert await one.end() == b""
        assert await two.ask(PINGREQ) == PINGRESP
        record = gate.sessions.record("one")
        assert record is not None
        assert record.disconnect_reason == "broker-error"
        assert gate.faults.count == 1
    assert "broker-error client=192.0.2.10:50123 listener=tcp" in caplog.text


async def test_logins_at_once_wait_for_each_other() -> None:
    class Slow(Echo):
        asking = most = 0

        async def authenticate(self, link: Link) -> None:
            self.asking += 1
            self.most = max(self.most, self.asking)
            for _ in range(5):
                await asyncio.sleep(0)
            self.asking -= 1

    from proxyproto_rs.mqtt.config import LimitsConfig

    backend = Slow()
    async with (
        serving(backend, limits=LimitsConfig(logins_at_once=2)) as (_, address),
        contextlib.AsyncExitStack() as stack,
    ):
        logins = (stack.enter_async_context(log_in(address, connect(f"dev-{n}"))) for n in range(10))
        assert {client.connack for client in await asyncio.gather(*logins)} == {WELCOME}
    assert backend.most == 2


async def test_a_broker_of_ones_own(certificates: Certificates) -> None:
    external = {"type": "external"}
    broker = Broker({"listeners": {"default": external, "ssl": dict(external)}, "plugins": dict(plugins.ALL)})
    gate = Gate(broker)
    await broker.start()
    listener = Listener("127.0.0.1", 0, trusted=TRUSTED)
    try:
        await gate.serve(listener, name="ssl", websocket=False, ssl=certificates.server_context())
        async with log_in(listener.getsockname(), ssl=certificates.client_context()) as client:
            assert client.connack == WELCOME
            session, _ = broker.sessions["dev"]
            assert (session.remote_address, session.remote_port) == CLIENT
    finally:
        await gate.close()
        await broker.shutdown()


def test_tls_on_another_loop_is_refused(certificates: Certificates) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def serve() -> None:
        with (
            Listener("127.0.0.1", 0, trusted=TRUSTED) as listener,
            pytest.raises(RuntimeError, match="needs asyncio's own event loop"),
        ):
            await Gate(Echo()).serve(listener, name="ssl", ssl=certificates.server_context())

    loop = uvloop.new_event_loop()
    loop.run_until_complete(serve())
    loop.close()


async def test_a_broker_that_runs_already_is_refused() -> None:
    broker = Broker({"listeners": {"default": {"type": "external"}}, "plugins": {}})
    await broker.start()
    try:
        with pytest.raises(RuntimeError, match="make its Gate before"):
            Gate(broker)
    finally:
        await broker.shutdown()
