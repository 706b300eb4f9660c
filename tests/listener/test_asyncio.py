"""A Listener on asyncio and uvloop: its own servers and their transports; given away as sock=; async for."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, SERVER, V2, Peer, TlsPeer, connected, turn_until, wait_readable
from proxyproto_rs import Header, Listener, ProxiedSocket, get_header, open_streams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from proxyproto_rs._server import Server

HEADER = Header.v2(CLIENT, SERVER)

on_asyncio = pytest.mark.asyncio(loop_factories=["asyncio"])
on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])


class Echo(asyncio.Protocol):
    """Sends back what comes; tells of its transport and of its end."""

    def __init__(self, made: asyncio.Queue[Echo]) -> None:
        self._made = made
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.peername: Any = None
        self.header: Header | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        # asyncio's TLS transports forget both when they are closed.
        self.peername = transport.get_extra_info("peername")
        self.header = get_header(transport)
        self._made.put_nowait(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport.close()  # or Python 3.10 thinks that a TLS transport is still open
        self.lost.set_result(exc)


def extra_info(holder: Any) -> dict[str, Any]:
    names = ("peername", "sockname", "proxy_header", "proxy_peername", "proxy_sockname")
    return {name: holder.get_extra_info(name) for name in names}


def expected_info(peer: asyncio.StreamWriter) -> dict[str, Any]:
    return {
        "peername": CLIENT,
        "sockname": SERVER,
        "proxy_header": HEADER,
        "proxy_peername": peer.get_extra_info("sockname"),
        "proxy_sockname": peer.get_extra_info("peername"),
    }


# --- create_server ---


async def test_a_protocol_sees_the_client(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with await listener.create_server(lambda: Echo(made)):
        async with connected(listener.getsockname(), V2, b"ping") as (reader, writer):
            assert await reader.readexactly(4) == b"ping"
            protocol = await made.get()
            transport = protocol.transport
            assert extra_info(transport) == expected_info(writer)
            sock = transport.get_extra_info("socket")
            assert (sock.getpeername(), sock.getsockname()) == (CLIENT, SERVER)
            assert transport.get_extra_info("no such thing", "default") == "default"
            assert transport.get_protocol() is protocol
        assert await protocol.lost is None
        assert extra_info(transport) == expected_info(writer)
        assert get_header(transport) == HEADER
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_protocol_sees_the_real_ends_where_the_header_names_nobody(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with await listener.create_server(lambda: Echo(made)):
        async with connected(listener.getsockname(), LOCAL) as (_, writer):
            protocol = await made.get()
            info = extra_info(protocol.transport)
            assert info["peername"] == info["proxy_peername"] == writer.get_extra_info("sockname")
            assert info["sockname"] == info["proxy_sockname"] == writer.get_extra_info("peername")
            assert info["proxy_header"] == Header.local()
        await protocol.lost


async def test_a_transport_does_what_transports_do(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with await listener.create_server(lambda: Echo(made)):
        async with connected(listener.getsockname(), V2) as (reader, writer):
            protocol = await made.get()
            transport = protocol.transport
            transport.pause_reading()
            assert not transport.is_reading()
            writer.write(b"a")
            transport.resume_reading()
            assert await reader.readexactly(1) == b"a"
            assert transport.is_reading()
            transport.set_write_buffer_limits(high=100, low=10)
            assert transport.get_write_buffer_limits() == (10, 100)
            assert transport.get_write_buffer_size() == 0
            transport.writelines([b"b", b"c"])
            assert transport.can_write_eof()
            transport.write_eof()
            assert await reader.read() == b"bc"
            assert not transport.is_closing()
            transport.abort()
            assert transport.is_closing()
        await protocol.lost


async def test_a_transport_takes_another_protocol(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with await listener.create_server(lambda: Echo(made)):
        async with connected(listener.getsockname(), V2) as (reader, writer):
            first = await made.get()
            second = Echo(made)
            second.connection_made(first.transport)
            first.transport.set_protocol(second)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert first.transport.get_protocol() is second
        assert await second.lost is None
        assert not first.lost.done()


class Buffered(asyncio.BufferedProtocol):
    """Echo, into a buffer of its own."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = bytearray(4)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def test_a_buffered_protocol_is_served(listener: Listener) -> None:
    async with (
        await listener.create_server(Buffered),
        connected(listener.getsockname(), V2, b"payload") as (reader, writer),
    ):
        assert await reader.readexactly(7) == b"payload"
        writer.write_eof()
        assert await reader.read() == b""


async def test_more_connections_than_a_batch(listener: Listener) -> None:
    """All are there before the loop looks; each turn of the loop takes 100 of them, and others get theirs."""
    turns: list[int] = []
    served: list[Any] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def count_in_each_turn() -> None:
        turns.append(len(served))
        if len(served) < 250:
            loop.call_soon(count_in_each_turn)
        else:
            done.set()

    class Counted(asyncio.Protocol):
        def __init__(self) -> None:
            served.append(self)

        def connection_made(self, transport: Any) -> None:
            transport.close()

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(listener.getsockname(), V2)) for _ in range(250)]
        await turn_until(lambda: listener.stats().ready == 250)
        async with await listener.create_server(Counted):
            loop.call_soon(count_in_each_turn)
            await done.wait()
            for peer in peers:
                assert await asyncio.to_thread(peer.sees_the_end)
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 100


async def test_a_failing_factory_is_reported_and_stops_nothing(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    failures = [LookupError("one"), LookupError("two")]

    def factory() -> Echo:
        if failures:
            raise failures.pop()
        return Echo(made)

    async with await listener.create_server(factory):
        for text in ("two", "one"):
            async with connected(listener.getsockname(), V2) as (reader, _):
                assert await reader.read() == b""
            assert str(loop_errors.pop()["exception"]) == text
        async with connected(listener.getsockname(), V2, b"x") as (reader, _):
            assert await reader.readexactly(1) == b"x"
        await (await made.get()).lost
    assert listener.stats()["v2"] == 3


async def test_a_failing_connection_made_is_reported_and_stops_nothing(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()

    class Failing(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if self.transport.get_extra_info("proxy_header") is not None:
                self.transport.close()
                raise LookupError("not this one")

    async with await listener.create_server(lambda: Failing(made)):
        async with connected(listener.getsockname(), V2) as (reader, _):
            assert await reader.read() == b""
        await (await made.get()).lost
        assert "not this one" in str(loop_errors.pop()["exception"])
        assert listener.fileno() >= 0


@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_unix_connections_are_served(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "listener.sock")
    made: asyncio.Queue[Echo] = asyncio.Queue()
    names: list[Any] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append(writer.get_extra_info("peername"))
        writer.write(await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()

    with Listener.unix(path) as listener:
        if kind == "create_server":
            server = await listener.create_server(lambda: Echo(made))
        else:
            server = await listener.start_server(echo)
        async with server:
            async with connected(path, V2, b"x") as (reader, _):
                assert await reader.readexactly(1) == b"x"
            if kind == "create_server":
                protocol = await made.get()
                await protocol.lost
                names.append(protocol.transport.get_extra_info("peername"))
    assert names == [CLIENT]


# --- start_server ---


async def serve_one(
    listener: Listener,
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    client: Callable[[], Awaitable[None]],
    **keywords: Any,
) -> None:
    """Run both to their ends; whatever one of them raises is raised here."""
    handled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connected_cb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except BaseException as error:
            handled.set_exception(error)
        else:
            handled.set_result(None)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await listener.start_server(connected_cb, **keywords):
        await client()
        await handled


async def test_a_stream_sees_the_client(listener: Listener) -> None:
    seen: list[Any] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend([extra_info(writer), extra_info(writer.transport), get_header(writer)])
        seen.append(writer.get_extra_info("socket").getpeername())
        writer.write(await reader.readexactly(4))
        await writer.drain()

    async def client() -> None:
        async with connected(listener.getsockname(), V2, b"ping") as (reader, writer):
            assert await reader.read() == b"ping"
            expected = expected_info(writer)
        assert seen == [expected, expected, HEADER, CLIENT]

    await serve_one(listener, handler, client)
    await turn_until(lambda: listener.stats().open == 0)


async def test_a_plain_function_may_be_called_back(listener: Listener) -> None:
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    def connected_cb(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.put_nowait(writer)

    async with (
        await listener.start_server(connected_cb, limit=10),
        connected(listener.getsockname(), V2) as (reader, _),
    ):
        writer = await writers.get()
        writer.write(b"hello")
        writer.close()
        assert await reader.read() == b"hello"
        await writer.wait_closed()


async def test_the_limit_is_the_readers(listener: Listener) -> None:
    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"\n")

    async def client() -> None:
        async with connected(listener.getsockname(), V2, b"x" * 100) as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""

    await serve_one(listener, handler, client, limit=10)


async def test_a_failing_callback_is_reported_and_stops_nothing(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    fail = True

    async def connected_cb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fail:
            # asyncio closes it from Python 3.11 on; before, who is called does.
            writer.close()
            raise LookupError("in the callback")
        writer.write(await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()

    async with await listener.start_server(connected_cb):
        async with connected(listener.getsockname(), V2) as (reader, _):
            assert await reader.read() == b""
        gc.collect()  # up to Python 3.10 asyncio reports it then
        assert [str(error["exception"]) for error in loop_errors] == ["in the callback"]
        loop_errors.clear()
        fail = False
        async with connected(listener.getsockname(), V2, b"x") as (reader, _):
            assert await reader.read() == b"x"
    await turn_until(lambda: listener.stats().open == 0)


# --- TLS ---


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
        # uvloop's start_tls takes its own transports only.
        transport = protocol.transport.get_extra_info("wrapped_transport", protocol.transport)
        protocol.transport = await loop.start_tls(transport, protocol, server_context, server_side=True)
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


# --- Given away as sock= ---


@on_asyncio
@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_asyncio_serves_it_as_sock(listener: Listener, kind: str) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert get_header(writer) == HEADER
        assert writer.get_extra_info("peername") == CLIENT
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    loop = asyncio.get_running_loop()
    if kind == "create_server":
        server = await loop.create_server(lambda: Echo(made), sock=listener)
    else:
        server = await asyncio.start_server(handler, sock=listener)
    async with server:
        async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
            assert await reader.readexactly(4) == b"ping"
        if kind == "create_server":
            protocol = await made.get()
            assert (protocol.peername, protocol.header) == (CLIENT, HEADER)
            await protocol.lost
    assert listener.fileno() == -1


@on_asyncio
async def test_a_drained_listener_does_not_keep_asyncio_busy(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    """asyncio cannot know that it is over: it is told once, and not in each turn of its loop."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop_errors.append(context)
        told.set()

    loop.set_exception_handler(handle)
    async with await loop.create_server(asyncio.Protocol, sock=listener):
        listener.drain()
        await told.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not wait_readable(listener.fileno(), 0)
    assert [error["exception"].errno for error in loop_errors] == [errno.EBADF]
    loop_errors.clear()


@on_asyncio
async def test_asyncio_serves_tls_on_it_as_sock(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    made: asyncio.Queue[Echo] = asyncio.Queue()

    def client() -> bytes:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=V2)
            tls.send(b"ping")
            return tls.receive()

    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Echo(made), sock=listener, ssl=server_context):
        assert await asyncio.to_thread(client) == b"ping"
        protocol = await made.get()
        assert (protocol.peername, protocol.header) == (CLIENT, HEADER)
        await protocol.lost


async def test_the_loop_accepts_from_it(listener: Listener) -> None:
    """On uvloop too, whose sock_accept() asks the socket itself."""
    listener.settimeout(0)
    loop = asyncio.get_running_loop()
    accepting = asyncio.create_task(loop.sock_accept(listener))
    await asyncio.sleep(0)
    async with connected(listener.getsockname(), V2, b"x"):
        sock, address = await accepting
        with sock:
            assert isinstance(sock, ProxiedSocket)
            assert address == CLIENT
            assert await loop.sock_recv(sock, 1) == b"x"


@on_uvloop
async def test_uvloop_is_refused_as_it_would_never_serve(listener: Listener, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match=r"listener\.create_server.*listener\.start_server"):
        await loop.create_server(asyncio.Protocol, sock=listener)
    with pytest.raises(RuntimeError, match=r"listener\.create_server.*listener\.start_server"):
        await asyncio.start_server(lambda reader, writer: None, sock=listener)
    with Listener.unix(tmp_path / "listener.sock") as unix:
        with pytest.raises(RuntimeError, match="uvloop"):
            await loop.create_unix_server(asyncio.Protocol, sock=unix)
        with pytest.raises(RuntimeError, match="uvloop"):
            await loop.create_server(asyncio.Protocol, sock=unix)
    listener.setblocking(True)
    listener.settimeout(0)
    assert not listener.getblocking()


# --- The server ---


async def test_the_server_is_asyncios(listener: Listener) -> None:
    server = await listener.create_server(asyncio.Protocol)
    public = {name for name in dir(asyncio.Server) if not name.startswith("_")}
    assert public == {name for name in dir(server) if not name.startswith("_")}
    assert isinstance(server, asyncio.AbstractServer)
    assert server.get_loop() is asyncio.get_running_loop()
    assert server.is_serving()
    (shown,) = server.sockets
    assert shown.getsockname() == listener.getsockname()
    assert shown.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert str(listener.getsockname()[1]) in repr(server)
    await server.start_serving()
    server.close()
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    assert listener.fileno() == -1
    await server.wait_closed()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.start_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_serving_starts_when_told(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        server = await listener.create_server(lambda: Echo(made), start_serving=False)
        assert not server.is_serving()
        await turn_until(lambda: listener.stats().ready == 1)
        await asyncio.sleep(0)
        assert listener.stats().ready == 1
        await server.start_serving()
        assert server.is_serving()
        assert await reader.readexactly(1) == b"x"
    await (await made.get()).lost
    server.close()


async def test_serving_forever_ends_with_cancellation(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    server = await listener.create_server(lambda: Echo(made), start_serving=False)
    serving = asyncio.create_task(server.serve_forever())
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        assert await reader.readexactly(1) == b"x"
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
    await (await made.get()).lost
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert listener.fileno() == -1


async def test_serving_forever_ends_with_the_server(listener: Listener) -> None:
    server = await listener.create_server(asyncio.Protocol)
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_wait_closed_waits_for_connections_as_asyncio_does(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    server = await listener.create_server(lambda: Echo(made))
    async with connected(listener.getsockname(), V2, b"x") as (reader, writer):
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        protocol = await made.get()
        assert not waiting.done()
        server.close()
        assert await reader.readexactly(1) == b"x"
        assert not waiting.done()
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        late = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        assert late.done() is (sys.version_info < (3, 12))
    await protocol.lost
    await waiting
    await late
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Server.close_clients came with Python 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
@pytest.mark.parametrize("kind", ["create_server", "start_server"])
async def test_clients_are_closed_all_at_once(listener: Listener, method: str, kind: str) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def say_x(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"x")

    server: Any
    if kind == "create_server":
        server = await listener.create_server(lambda: Echo(made))
    else:
        server = await listener.start_server(say_x)
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        assert await reader.readexactly(1) == b"x"
        getattr(server, method)()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        server.close()
        await server.wait_closed()


async def test_a_factory_may_close_the_server(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()

    def factory() -> Echo:
        server.close()
        return Echo(made)

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(listener.getsockname(), V2)) for _ in range(5)]
        await turn_until(lambda: listener.stats().ready == 5)
        server = await listener.create_server(factory)
        served = await made.get()
        served.transport.close()
        await served.lost
        for peer in peers:
            assert await asyncio.to_thread(peer.sees_the_end)
        await server.wait_closed()
    assert made.empty()


async def test_closing_the_listener_closes_the_server(listener: Listener) -> None:
    server = await listener.create_server(asyncio.Protocol)
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    listener.close()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    await server.wait_closed()


async def test_closing_the_listener_in_another_thread_closes_the_server(listener: Listener) -> None:
    server = await listener.create_server(asyncio.Protocol)
    closed = asyncio.create_task(server.wait_closed())
    await asyncio.to_thread(listener.close)
    await closed
    assert not server.is_serving()


async def test_a_drained_listener_closes_the_server_when_all_are_served(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    async with connected(listener.getsockname(), V2, b"x") as (reader, writer):
        await turn_until(lambda: listener.stats().ready == 1)
        listener.drain()
        server = await listener.create_server(lambda: Echo(made))
        closed = asyncio.create_task(server.wait_closed())
        assert await reader.readexactly(1) == b"x"
        protocol = await made.get()
        writer.close()
        await protocol.lost
        await closed
    assert not server.is_serving()
    assert listener.fileno() == -1


async def test_two_servers_share_a_listener(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    servers: list[Server] = [await listener.create_server(lambda: Echo(made)) for _ in range(2)]
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        assert await reader.readexactly(1) == b"x"
    await (await made.get()).lost
    servers[0].close()
    await asyncio.create_task(servers[1].wait_closed())
    assert not servers[1].is_serving()


async def test_a_closed_listener_is_not_served(listener: Listener) -> None:
    listener.close()
    with pytest.raises(OSError, match="closed"):
        await listener.create_server(asyncio.Protocol)
    with pytest.raises(OSError, match="closed"):
        await listener.start_server(lambda reader, writer: None)


# --- async for ---


async def test_iterating_gives_connections_until_closed(listener: Listener) -> None:
    addresses = []
    async with connected(listener.getsockname(), V2), connected(listener.getsockname(), LOCAL), listener:
        async for sock in listener:
            with sock:
                assert not sock.getblocking()
                addresses.append(sock.getpeername()[0])
            if len(addresses) == 2:
                listener.close()
    assert sorted(addresses) == ["127.0.0.1", CLIENT[0]]
    assert listener.fileno() == -1


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_waiting_iterations_end(listener: Listener, end: str) -> None:
    async def iterate() -> list[ProxiedSocket]:
        return [sock async for sock in listener]

    iterating = [asyncio.create_task(iterate()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(getattr(listener, end))
    assert await asyncio.gather(*iterating) == [[], [], []]


async def test_a_cancelled_iteration_loses_nothing(listener: Listener) -> None:
    waiting = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with connected(listener.getsockname(), V2):
        sock = await anext(listener)
        sock.close()
        assert sock.header == HEADER


async def test_iteration_takes_up_refusals() -> None:
    refused: asyncio.Queue[str] = asyncio.Queue()
    async with Listener(
        "127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=lambda refusal: refused.put_nowait(refusal.reason)
    ) as listener:
        accepting = asyncio.ensure_future(anext(listener))
        async with connected(listener.getsockname(), b"GET / HTTP/1.1\r\n\r\n"):
            assert await refused.get() == "missing-header"
        assert not accepting.done()
        async with connected(listener.getsockname(), V2):
            (await accepting).close()


async def test_a_loop_that_knows_nothing_of_us(listener: Listener) -> None:
    """How trio, anyio and others use it: wait until the fd is readable, then try."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[ProxiedSocket] = loop.create_future()

    def readable() -> None:
        sock = listener.try_accept()
        if sock is not None:
            accepted.set_result(sock)

    loop.add_reader(listener.fileno(), readable)
    try:
        async with connected(listener.getsockname(), V2):
            with await accepted as sock:
                assert sock.getpeername() == CLIENT
    finally:
        loop.remove_reader(listener.fileno())


def test_a_new_loop_serves_after_another_has_ended(listener: Listener) -> None:
    """What a loop that was closed in the middle of serving has held is let go of."""

    async def begin() -> None:
        await listener.create_server(asyncio.Protocol)

    async def serve() -> bytes:
        made: asyncio.Queue[Echo] = asyncio.Queue()
        async with await listener.create_server(lambda: Echo(made)):
            async with connected(listener.getsockname(), V2, b"x") as (reader, _):
                data = await reader.readexactly(1)
            await (await made.get()).lost
        return data

    for coroutine in (begin(), begin()):
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(coroutine)
        loop.close()
    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(serve()) == b"x"
    loop.close()
