"""TLS behind the header: from the first byte on, and after STARTTLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from typing import Any

import pytest

from peers import CLIENT, SERVER, V2, Peer, TlsPeer, connected, turn_until
from proxyproto_rs import Listener, get_header, open_streams
from proxyproto_rs._loops import which
from served import HEADER, Echo, extra_info, on_asyncio, serve_one


@pytest.mark.parametrize("kind", ["create_server", "start_server", "open_streams"])
async def test_tls_behind_the_header_in_one_segment(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], kind: str
) -> None:
    server_context, client_context = tls_contexts
    options: dict[str, Any] = {"ssl": server_context, "ssl_handshake_timeout": 30.0}
    if sys.version_info >= (3, 11):
        options["ssl_shutdown_timeout"] = 30.0
    seen: asyncio.Queue[tuple[dict[str, Any], bool]] = asyncio.Queue()

    def see(holder: Any) -> None:
        is_tls = holder.get_extra_info("ssl_object") is not None
        seen.put_nowait((extra_info(holder), is_tls))

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            see(self.transport)
            self.transport.write(data)
            self.transport.close()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(4)
        see(writer)
        writer.write(data)
        writer.close()
        await writer.wait_closed()

    def client() -> bytes:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=V2)
            tls.send(b"ping")
            return tls.receive() + tls.receive()

    async with contextlib.AsyncExitStack() as stack:
        if kind == "create_server":
            await stack.enter_async_context(await listener.create_server(Protocol, **options))
        elif kind == "start_server":
            await stack.enter_async_context(await listener.start_server(handler, **options))
        talking = asyncio.create_task(asyncio.to_thread(client))
        if kind == "open_streams":
            await handler(*await open_streams(await anext(listener), **options))
        assert await talking == b"ping"
        info, is_tls = await seen.get()
    assert is_tls
    assert (info["peername"], info["sockname"], info["proxy_header"]) == (CLIENT, SERVER, HEADER)
    assert info["proxy_sockname"][0] == info["proxy_peername"][0] == "127.0.0.1"
    await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.parametrize("debug", [False, True], ids=["quiet", "debug"])
@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_a_failing_handshake_is_told_in_debug_mode_only(
    listener: Listener,
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    loop_errors: list[dict[str, Any]],
    kind: str,
    debug: bool,
) -> None:
    asyncio.get_running_loop().set_debug(debug)

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("the handshake has failed")

    if kind == "create_server":
        server = await listener.create_server(asyncio.Protocol, ssl=tls_contexts[0])
    else:
        server = await listener.start_server(nobody, ssl=tls_contexts[0])
    async with server:
        async with connected(listener.getsockname(), V2, b"GET / HTTP/1.1\r\n\r\n") as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        await turn_until(lambda: listener.stats().open == 0)
        await asyncio.sleep(0)  # the report follows the closing, if there is one
        assert server.is_serving()
    assert all(isinstance(error["exception"], ssl.SSLError) for error in loop_errors)
    assert bool(loop_errors) is debug
    loop_errors.clear()


async def test_a_failing_handshake_of_open_streams_is_raised(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with connected(listener.getsockname(), V2, b"GET / HTTP/1.1\r\n\r\n") as (reader, _):
        sock = await anext(listener)
        with pytest.raises(ssl.SSLError):
            await open_streams(sock, ssl=tls_contexts[0])
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_cancelled_open_streams_closes(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with connected(listener.getsockname(), V2) as (reader, _):
        opening = asyncio.create_task(open_streams(await anext(listener), ssl=tls_contexts[0]))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await reader.read() == b""
    await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls came with Python 3.11")
@pytest.mark.parametrize("kind", ["start_server", "open_streams"])
async def test_a_stream_is_upgraded_to_tls(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], kind: str
) -> None:
    server_context, client_context = tls_contexts

    async def handler(reader: asyncio.StreamReader, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go ahead\n")
        await writer.start_tls(server_context)
        assert writer.get_extra_info("ssl_object") is not None
        assert writer.get_extra_info("peername") == CLIENT
        assert get_header(writer) == HEADER
        writer.write(await reader.readexactly(4))
        await writer.drain()

    async def client() -> None:
        async with connected(listener.getsockname(), V2, b"STARTTLS\n") as (reader, writer):
            assert await reader.readline() == b"go ahead\n"
            await writer.start_tls(client_context, server_hostname="localhost")  # type: ignore[attr-defined]
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"

    if kind == "start_server":
        await serve_one(listener, handler, client)
        return
    talking = asyncio.create_task(client())
    reader, writer = await open_streams(await anext(listener))
    await handler(reader, writer)
    await talking
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_a_protocol_is_upgraded_to_tls(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    made: asyncio.Queue[Echo] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    class StartTls(Echo):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            asked.set()

    def client() -> bytes:
        with Peer(listener.getsockname(), V2, b"go") as peer:
            assert peer.sock.recv(2) == b"go"
            tls = TlsPeer(peer, client_context)
            tls.send(b"ping")
            return tls.receive()

    async with await listener.create_server(lambda: StartTls(made)):
        talking = asyncio.create_task(asyncio.to_thread(client))
        protocol = await made.get()
        await asked.wait()
        transport: Any = protocol.transport
        if which.runs_uvloop():
            with pytest.raises(TypeError):  # uvloop's start_tls takes its own transports only
                await loop.start_tls(transport, protocol, server_context, server_side=True)
            secure = await transport.start_tls(protocol, server_context, server_side=True)
        else:
            secure = await loop.start_tls(transport, protocol, server_context, server_side=True)
        assert secure.get_extra_info("peername") == CLIENT
        assert get_header(secure) is not None
        protocol.transport = secure
        assert await talking == b"ping"
        await protocol.lost


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"ssl": True}, TypeError),
        ({"ssl_handshake_timeout": 1.0}, ValueError),
        ({"ssl_shutdown_timeout": 1.0}, ValueError),
        ({"ssl": "context", "ssl_handshake_timeout": 0}, ValueError),
    ],
    ids=str,
)
async def test_tls_options_are_checked_as_asyncio_does(
    listener: Listener,
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    keywords: dict[str, Any],
    error: type[Exception],
) -> None:
    if keywords.get("ssl") == "context":
        keywords = {**keywords, "ssl": tls_contexts[0]}
    with pytest.raises(error, match="ssl"):
        await listener.create_server(asyncio.Protocol, **keywords)
    with pytest.raises(error, match="ssl"):
        await listener.start_server(lambda reader, writer: None, **keywords)


@on_asyncio
@pytest.mark.skipif(
    sys.version_info >= (3, 11), reason="asyncio has ssl_shutdown_timeout from Python 3.11 on"
)
async def test_what_asyncio_does_not_know_is_said_before_the_first_handshake(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    context = tls_contexts[0]
    with pytest.raises(TypeError, match="ssl_shutdown_timeout"):
        await listener.create_server(asyncio.Protocol, ssl=context, ssl_shutdown_timeout=1.0)
    with pytest.raises(TypeError, match="ssl_shutdown_timeout"):
        await listener.start_server(lambda reader, writer: None, ssl=context, ssl_shutdown_timeout=1.0)
    async with connected(listener.getsockname(), V2):
        with await anext(listener) as conn, pytest.raises(TypeError, match="ssl_shutdown_timeout"):
            await open_streams(conn, ssl=context, ssl_shutdown_timeout=1.0)
