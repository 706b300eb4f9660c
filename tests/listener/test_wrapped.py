"""Loops of which we know only connect_accepted_socket(). Here asyncio plays such a loop.

uvloop is one of them; what both share is tested with it too, and in test_serve.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, SERVER, V2, Peer, TlsPeer, connected, turn_until
from proxyproto_rs import Header, Listener, get_header, open_streams
from proxyproto_rs._loops import which
from proxyproto_rs._loops.transport import WrappedStreamWriter, WrappedTransport
from proxyproto_rs._loops.wrapped import WrappedServer

if TYPE_CHECKING:
    import ssl

HEADER = Header.v2(CLIENT, SERVER)

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture(autouse=True)
def _unknown_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which, "is_selector_loop", lambda _: False)


class Once(asyncio.Protocol):
    """Answers once and closes; a test can look at what it was given."""

    def __init__(self, transports: list[Any]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


async def test_a_protocol_gets_a_transport_with_the_clients_address(listener: Listener) -> None:
    transports: list[Any] = []
    server = await listener.create_server(lambda: Once(transports))
    assert isinstance(server, WrappedServer)
    async with server, connected(listener.getsockname(), V2, b"x") as (reader, writer):
        assert await reader.read() == b"x"
        (transport,) = transports
        assert isinstance(transport, WrappedTransport)
        assert transport.get_extra_info("peername") == CLIENT
        assert transport.get_extra_info("sockname") == SERVER
        assert transport.get_extra_info("proxy_peername") == writer.get_extra_info("sockname")
        assert get_header(transport) == HEADER
        assert transport.get_extra_info("no such thing", 1) == 1
        assert "WrappedTransport" in repr(transport)
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_stream_has_the_clients_address(listener: Listener) -> None:
    seen: list[Any] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend([type(writer), writer.get_extra_info("peername"), get_header(writer)])
        writer.write(await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()

    async with (
        await listener.start_server(handler),
        connected(listener.getsockname(), V2, b"x") as (reader, _),
    ):
        assert await reader.read() == b"x"
    assert seen == [WrappedStreamWriter, CLIENT, HEADER]
    await turn_until(lambda: listener.stats().open == 0)


async def test_open_streams_has_the_clients_address(listener: Listener) -> None:
    async with connected(listener.getsockname(), V2, b"x") as (peer_reader, _):
        reader, writer = await open_streams(await anext(listener))
        assert writer.get_extra_info("peername") == CLIENT
        writer.write(await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()
        assert await peer_reader.read() == b"x"
    await turn_until(lambda: listener.stats().open == 0)


async def test_tls_behind_the_header(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    transports: list[Any] = []

    def client() -> bytes:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, tls_contexts[1], before=V2)
            tls.send(b"x")
            return tls.receive() + tls.receive()  # to the end, or asyncio waits for it

    async with await listener.create_server(lambda: Once(transports), ssl=tls_contexts[0]):
        assert await asyncio.to_thread(client) == b"x"
        assert isinstance(transports[0], WrappedTransport)
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_failing_handshake_ends_the_connection_only(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with await listener.create_server(asyncio.Protocol, ssl=tls_contexts[0]) as server:
        async with connected(listener.getsockname(), V2, b"GET / HTTP/1.1\r\n\r\n") as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        await turn_until(lambda: listener.stats().open == 0)
        assert server.is_serving()


async def test_a_failing_factory_ends_the_connection_only(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    def factory() -> asyncio.Protocol:
        raise LookupError("no protocol")

    async with await listener.create_server(factory) as server:
        async with connected(listener.getsockname(), V2) as (reader, _):
            assert await reader.read() == b""
        assert str(loop_errors.pop()["exception"]) == "no protocol"
        assert server.is_serving()
        assert listener.stats().open == 0
