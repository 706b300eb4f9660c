"""The loop of `proxyproto_rs.uvloop` serves a Listener given as sock= through the Listener. All else is uvloop's."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import proxyproto_rs.uvloop
from endings import Ending, cases, run_through
from peers import CLIENT, V2, Peer, TlsPeer, connected, turn_until
from proxyproto_rs import Listener, ProxiedSocket, get_header, open_transport
from served import HEADER, Echo

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

on_our_uvloop = pytest.mark.asyncio(loop_factories=["proxyproto_rs.uvloop"])


async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _ = writer.get_extra_info("peername")
    writer.write(f"{host} {get_header(writer) == HEADER}".encode() + await reader.readexactly(4))
    writer.close()
    await writer.wait_closed()


@on_our_uvloop
async def test_create_server_serves_a_listener(listener: Listener) -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Echo(made), sock=listener):
        async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
            assert await reader.readexactly(4) == b"ping"
        protocol = await made.get()
        assert (protocol.peername, protocol.header) == (CLIENT, HEADER)
        await protocol.lost
    assert listener.fileno() == -1


@on_our_uvloop
async def test_start_server_serves_a_listener(listener: Listener) -> None:
    server = await asyncio.start_server(answer_one, sock=listener, backlog=7)
    async with server, connected(listener.getsockname(), V2, b"ping") as (reader, _):
        assert await reader.read() == b"192.0.2.1 True" + b"ping"


@on_our_uvloop
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("ending", "tls"), [pytest.param(*row, id=name) for name, *row in cases()])
async def test_nothing_stays_of_a_connection_that_ends_early(
    listener: Listener,
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    ending: Ending,
    tls: bool,
) -> None:
    loop = asyncio.get_running_loop()
    # An error that somebody keeps holds the streams: its traceback has the handler's frame.
    loop.set_exception_handler(lambda _loop, _context: None)

    async def serve(ending: Ending, keywords: dict[str, Any]) -> Any:
        if ending.factory is not None:
            return await loop.create_server(ending.factory, sock=listener, **keywords)
        assert ending.callback is not None
        return await asyncio.start_server(ending.callback, sock=listener, **keywords)

    # Streams are asyncio's own here, and those of some Pythons go on with a connection whose handler has failed.
    leave = ending.callback is not None and ending.asyncio_collects
    await run_through(
        listener, ending, tls_contexts if tls else None, serve, clients_leave=leave, collect=leave
    )


@on_our_uvloop
async def test_a_unix_listener_is_served(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = await asyncio.start_server(answer_one, sock=Listener.unix(path))
    async with server, connected(path, V2, b"ping") as (reader, _):
        assert await reader.read() == b"192.0.2.1 True" + b"ping"


@on_our_uvloop
async def test_tls_begins_behind_the_header(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts

    def client() -> bytes:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=V2)
            tls.send(b"ping")
            return tls.receive()

    async with await asyncio.start_server(
        answer_one, sock=listener, ssl=server_context, ssl_handshake_timeout=30, ssl_shutdown_timeout=30
    ):
        assert await asyncio.to_thread(client) == b"192.0.2.1 True" + b"ping"


async def hear(conn: ProxiedSocket, loop: asyncio.AbstractEventLoop, **keywords: Any) -> list[Any]:
    """What a protocol gets that the loop itself makes a transport for."""
    heard: list[Any] = []

    class Hears(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            heard.append(transport)

        def data_received(self, data: bytes) -> None:
            heard[0].write(data)
            heard[0].close()

    transport, protocol = await loop.connect_accepted_socket(Hears, conn, **keywords)
    assert heard == [transport]
    assert transport.get_protocol() is protocol
    return [transport.get_extra_info("peername"), get_header(transport)]


@on_our_uvloop
async def test_an_accepted_connection_keeps_its_client(listener: Listener) -> None:
    async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
        conn = await anext(listener)
        assert await hear(conn, asyncio.get_running_loop()) == [CLIENT, HEADER]
        assert await reader.read() == b"ping"
    await turn_until(lambda: listener.stats().open == 0)


@on_our_uvloop
async def test_an_accepted_connection_keeps_its_client_in_tls(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts

    def client() -> bytes:
        with Peer(listener.getsockname(), V2) as peer:
            tls = TlsPeer(peer, client_context)
            tls.send(b"ping")
            return tls.receive()

    talking = asyncio.create_task(asyncio.to_thread(client))
    conn = await anext(listener)
    assert await hear(conn, asyncio.get_running_loop(), ssl=server_context) == [CLIENT, HEADER]
    assert await talking == b"ping"
    await turn_until(lambda: listener.stats().open == 0)


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("way", ["connect_accepted_socket", "create_connection"])
async def test_uvloop_itself_makes_no_transport_that_shows_the_proxy(listener: Listener, way: str) -> None:
    loop = asyncio.get_running_loop()
    async with connected(listener.getsockname(), V2, b"ping") as (reader, _):
        conn = await anext(listener)
        made = (
            loop.create_connection(asyncio.Protocol, sock=conn)
            if way == "create_connection"
            else loop.connect_accepted_socket(asyncio.Protocol, conn)
        )
        with pytest.raises(RuntimeError, match="show the proxy as the client: use 'await open_transport"):
            await made
        # The program may ask, and the connection is as it was.
        assert {conn.type for _ in range(1000)} == {
            socket.SOCK_STREAM
        }  # also once the interpreter has specialized it
        transport, _ = await open_transport(conn, lambda: Echo(asyncio.Queue()))
        assert transport.get_extra_info("peername") == CLIENT
        assert await reader.readexactly(4) == b"ping"
        transport.close()


@on_our_uvloop
async def test_tls_that_begins_later_keeps_the_client(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[Echo] = asyncio.Queue()
    asked = asyncio.Event()

    class Asked(Echo):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()  # what comes now is TLS
            asked.set()

    def client() -> bytes:
        with Peer(listener.getsockname(), V2, b"go") as peer:
            assert peer.sock.recv(2) == b"go"
            tls = TlsPeer(peer, client_context)
            tls.send(b"ping")
            return tls.receive()

    async with listener.create_server(lambda: Asked(made)):
        talking = asyncio.create_task(asyncio.to_thread(client))
        protocol = await made.get()
        await asked.wait()
        begun = await loop.start_tls(protocol.transport, protocol, server_context, server_side=True)
        assert begun is not None
        protocol.transport = begun
        assert [begun.get_extra_info("peername"), get_header(begun)] == [CLIENT, HEADER]
        assert await talking == b"ping"


@on_our_uvloop
async def test_start_serving_may_wait(listener: Listener) -> None:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(asyncio.Protocol, sock=listener, start_serving=False) as server:
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()


@on_our_uvloop
@pytest.mark.parametrize(
    "address", [{"host": "127.0.0.1"}, {"port": 0}, {"host": None, "port": 1}], ids=["host", "port", "none"]
)
async def test_an_address_beside_the_socket_is_refused(listener: Listener, address: dict[str, Any]) -> None:
    loop: Any = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="host/port and sock"):
        await loop.create_server(asyncio.Protocol, sock=listener, **address)
    with pytest.raises(ValueError, match="host/port and sock"):
        await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, sock=listener)


@on_our_uvloop
async def test_a_listener_of_the_past_is_refused(listener: Listener) -> None:
    listener.close()
    with pytest.raises(OSError, match="closed"):
        await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=listener)


@on_our_uvloop
async def test_another_socket_is_uvloops() -> None:
    made: asyncio.Queue[Echo] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(
        lambda: Echo(made), sock=socket.create_server(("127.0.0.1", 0))
    ) as server:
        assert type(server).__module__ == "uvloop.loop"
        address = server.sockets[0].getsockname()
        async with connected(address, b"ping") as (reader, writer):
            assert await reader.readexactly(4) == b"ping"
            assert (await made.get()).peername == writer.get_extra_info("sockname")


@on_our_uvloop
async def test_an_address_is_uvloops() -> None:
    loop: Any = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="Neither host/port nor sock were specified"):
        await loop.create_server(asyncio.Protocol)


def test_run_runs_on_it() -> None:
    async def main() -> tuple[asyncio.AbstractEventLoop, bool]:
        loop = asyncio.get_running_loop()
        return loop, loop.get_debug()

    loop, debug = proxyproto_rs.uvloop.run(main(), debug=True)
    assert (type(loop), loop.is_closed(), debug) == (proxyproto_rs.uvloop.Loop, True, True)


def test_run_takes_another_factory() -> None:
    async def main() -> type:
        return type(asyncio.get_running_loop())

    assert proxyproto_rs.uvloop.run(main(), loop_factory=uvloop.new_event_loop) is uvloop.Loop


def test_without_uvloop_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.uvloop")
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.uvloop needs uvloop: pip install uvloop$"):
        importlib.import_module("proxyproto_rs.uvloop")
