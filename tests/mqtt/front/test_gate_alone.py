"""The gate without the rest of the broker: with an amqtt Broker of the user's own behind it, and with another backend."""

from __future__ import annotations

import asyncio
import contextlib
from ssl import CERT_OPTIONAL
from typing import TYPE_CHECKING, Any

import pytest
from amqtt.broker import Broker

from interop.certificates import CLIENT_NAME
from proxyproto_rs import Listener
from proxyproto_rs.mqtt import Backend, Gate
from proxyproto_rs.mqtt.config import IdentityConfig, TlsConfig

from .. import plugins
from ..peers import (
    CLIENT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    WELCOME,
    connack,
    connect,
    dial,
    log_in,
    publish,
    subscribe,
)
from .gates import TRUSTED, Echo, Refusals, serving

if TYPE_CHECKING:
    from interop.certificates import Certificates
    from proxyproto_rs.mqtt import Link


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
    caplog.clear()  # it holds the traceback, and that the gate


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


@pytest.mark.parametrize("kind", ["options", "context"])
def test_tls_is_served_on_uvloop_too(certificates: Certificates, kind: str) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    server = str(certificates.server)
    ssl = TlsConfig(certfile=server, keyfile=server) if kind == "options" else certificates.server_context()

    async def serve() -> None:
        async with serving(Echo(), ssl=ssl) as (gate, address):
            for number in range(50):  # asyncio's way of starting TLS lost a ClientHello there, now and then
                how = connect(f"dev-{number}")
                async with log_in(address, how, ssl=certificates.client_context()) as client:
                    assert client.connack == WELCOME
                    assert await client.ask(publish("a", bytes(50_000))) == publish("a", bytes(50_000))
                    record = gate.sessions.record(f"dev-{number}")
                    assert record is not None
                    assert record.connection.tls is not None
                    assert (record.connection.tls.ended_at, record.connection.tls.version) == (
                        "broker",
                        "TLSv1.3",
                    )

    loop = uvloop.new_event_loop()
    loop.run_until_complete(serve())
    loop.close()


FAILED = [
    ("wrong-version", connect().encode(), "wrong-version: WRONG_VERSION_NUMBER"),
    ("http", b"GET / HTTP/1.1\r\n\r\n", "wrong-version: HTTP_REQUEST"),
    ("closed", b"\x16\x03\x01", "closed"),
]


@pytest.mark.parametrize(("sent", "said"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
async def test_a_context_of_ones_own_names_what_failed(
    certificates: Certificates, sent: bytes, said: str
) -> None:
    observer = Refusals()
    async with (
        serving(Echo(), ssl=certificates.server_context(), observer=observer) as (gate, address),
        dial(address, sent) as client,
    ):
        client.writer.write_eof()
        await client.end()
        while not observer.seen:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        del gate
    (refused,) = observer.seen
    assert (refused.reason, refused.detail, refused.connection.client) == ("tls-failed", said, CLIENT)


async def test_a_certificate_is_read_from_a_context_of_ones_own(certificates: Certificates) -> None:
    context = certificates.server_context()
    context.load_verify_locations(certificates.authority)
    context.verify_mode = CERT_OPTIONAL
    known = certificates.client_context()
    known.load_cert_chain(certificates.client)
    identity = IdentityConfig(source="tls")
    async with (
        serving(Echo(), ssl=context, websocket=True, identity=identity) as (gate, address),
        dial(address, ssl=known) as client,
    ):
        client.send(UPGRADE)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        client.send(masked(connect().encode()))
        assert await client.reader.readexactly(6) == b"\x82\x04" + WELCOME
        record = gate.sessions.record("dev")
        assert record is not None
        assert record.username == CLIENT_NAME


def masked(payload: bytes) -> bytes:
    """A binary message of less than 126 bytes, with a mask of zeros."""
    return bytes((0x82, 0x80 | len(payload))) + bytes(4) + payload


UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


async def test_a_broker_that_runs_already_is_refused() -> None:
    broker = Broker({"listeners": {"default": {"type": "external"}}, "plugins": {}})
    await broker.start()
    try:
        with pytest.raises(RuntimeError, match="make its Gate before"):
            Gate(broker)
    finally:
        await broker.shutdown()
