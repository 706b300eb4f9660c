"""trio on a Listener: the server, the listener for trio's own servers, and async for."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integrations.asking import WITH_TLS
from integrations.beside import run_beside
from peers import CLIENT, SERVER, V2, Peer, TlsPeer
from proxyproto_rs import Listener, ProxiedSocket, get_header
from proxyproto_rs.trio import ProxiedStream, SocketListener, serve_trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


async def echo(stream: Any) -> None:
    async for data in stream:
        header = get_header(stream)
        assert header is not None
        await stream.send_all(f"{header.authority} ".encode() + data)


def run(serve: Callable[[Listener], Any], listener: Listener, client: Callable[[], None]) -> None:
    """Serve a client that runs in a thread, then drain. The server must end."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener)
            await run_beside(client)
            listener.drain()

    trio.run(main)
    assert listener.stats().open == 0


def test_serve_trio_serves_and_ends_with_the_listener(listener: Listener) -> None:
    seen: list[Any] = []
    address = listener.getsockname()

    async def handler(stream: ProxiedStream) -> None:
        seen.append((stream.getpeername(), stream.getsockname(), stream.header))
        seen.append((stream.proxy_peername, stream.proxy_sockname))
        await echo(stream)
        await stream.send_eof()

    def client() -> None:
        with Peer(listener.getsockname(), WITH_TLS.raw, b"ping") as peer:
            peer.end()
            assert peer.receive() == b"shop.example ping"
            seen.append((peer.sock.getsockname(), address))

    async def serve(listener: Listener) -> None:
        await serve_trio(handler, listener)

    run(serve, listener, client)
    assert seen[0] == (CLIENT, SERVER, WITH_TLS)
    assert seen[1] == seen[2]
    assert listener.fileno() == -1


def test_tls_begins_behind_the_header(
    listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    listener.update(max_connections_per_client=1)

    def client() -> None:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping")
            assert tls.receive() == b"shop.example ping"
            assert listener.stats().open == 1

    async def handler(stream: trio.SSLStream[ProxiedStream]) -> None:
        with pytest.raises(trio.BrokenResourceError):  # the client ends without a TLS close_notify
            await echo(stream)

    async def serve(listener: Listener) -> None:
        await serve_trio(handler, listener, ssl_context=server_context)

    run(serve, listener, client)


def test_start_gives_the_listener_and_handlers_may_run_elsewhere(listener: Listener) -> None:
    async def main() -> None:
        async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Listener]) -> None:
                await serve_trio(echo, listener, handler_nursery=handlers, task_status=task_status)

            assert await nursery.start(start) is listener
            stream = await trio.open_tcp_stream(*listener.getsockname())
            async with stream:
                await stream.send_all(WITH_TLS.raw + b"ping")
                assert await stream.receive_some() == b"shop.example ping"
                listener.drain()

    trio.run(main)


def test_trios_own_servers_take_the_listener(listener: Listener) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [SocketListener(listener)])
            async with await trio.open_tcp_stream(*listener.getsockname()) as stream:
                await stream.send_all(WITH_TLS.raw + b"ping")
                assert await stream.receive_some() == b"shop.example ping"
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert listener.fileno() == -1


def test_connections_can_be_iterated_over_by_several_tasks(listener: Listener) -> None:
    served: list[ProxiedSocket] = []

    async def serve(listener: Listener) -> None:
        async for conn in listener:
            async with ProxiedStream(conn) as stream:
                await echo(stream)
            served.append(conn)

    def client() -> None:
        with Peer(listener.getsockname(), WITH_TLS.raw, b"1") as one, Peer(listener.getsockname(), V2) as two:
            assert one.sock.recv(100) == b"shop.example 1"
            two.send(b"2")
            assert two.sock.recv(100) == b"None 2"

    async def both(listener: Listener) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener)
            nursery.start_soon(serve, listener)

    run(both, listener, client)
    assert len(served) == 2


def test_waiting_can_be_cancelled(listener: Listener) -> None:
    async def main() -> None:
        with trio.move_on_after(0) as scope:
            async for _ in listener:
                pytest.fail("nobody has connected")
        assert scope.cancelled_caught
        with Peer(listener.getsockname(), V2):
            conn = await listener.__anext__()
            conn.close()

    trio.run(main)


def test_without_trio_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.trio")
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.trio needs trio: pip install trio$"):
        importlib.import_module("proxyproto_rs.trio")
