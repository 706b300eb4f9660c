"""The server of create_server and start_server behaves as asyncio's of the same Python version does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from peers import V2, Peer, connected, turn_until
from served import Echo

if TYPE_CHECKING:
    import ssl

    from proxyproto_rs import Listener
    from proxyproto_rs._loops.server import Server


async def test_the_server_is_asyncios(listener: Listener) -> None:
    server = await listener.create_server(asyncio.Protocol)
    public = {name for name in dir(asyncio.Server) if not name.startswith("_")}
    # The first two came with Python 3.13.
    assert public | {"close_clients", "abort_clients", "drain", "drain_timeout", "listeners"} == {
        name for name in dir(server) if not name.startswith("_")
    }
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


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_clients_in_their_handshake_are_closed_too(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], method: str
) -> None:
    server = await listener.create_server(asyncio.Protocol, ssl=tls_contexts[0], ssl_handshake_timeout=300)
    async with connected(listener.getsockname(), V2) as (reader, _):
        await turn_until(lambda: listener.stats()["v2"] == 1)
        server.close()
        getattr(server, method)()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await server.wait_closed()
    await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_clients_are_closed_from_the_first_moment_on(listener: Listener, method: str) -> None:
    """Whoever is told of the first client of a batch can close all of them."""

    class ClosesAll(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            getattr(server, method)()

    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(listener.getsockname(), V2)) for _ in range(3)]
        await turn_until(lambda: listener.stats().ready == 3)
        async with await listener.create_server(ClosesAll) as server:
            for peer in peers:
                assert await asyncio.to_thread(peer.sees_the_end)
            await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_the_server_ends_though_clients_are_collected(listener: Listener) -> None:
    """Of a transport that does not read, and that nobody has kept, nobody hears anything more."""

    class Forgets(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            # Python 3.10 begins to read after this, whatever this says.
            asyncio.get_running_loop().call_soon(transport.pause_reading)

    server = await listener.create_server(Forgets)
    with Peer(listener.getsockname(), V2) as peer:
        await turn_until(lambda: listener.stats()["v2"] == 1)
        await turn_until(lambda: gc.collect() >= 0 and listener.stats().open == 0)
        assert await asyncio.to_thread(peer.sees_the_end)
    closed = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(0)
    server.close()
    await closed


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
