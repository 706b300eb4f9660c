"""anyio on a Listener, on asyncio, uvloop and trio."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from integrations.asking import WITH_TLS
from integrations.beside import run_beside
from peers import CLIENT, LOCAL, SERVER, V2, Peer, TlsPeer
from proxyproto_rs import Header, Listener, get_header
from proxyproto_rs.anyio import ProxyAttribute, SocketListener, SocketStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
on_each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=list(BACKENDS))


async def echo(stream: anyio.abc.ByteStream) -> None:
    async with stream:
        async for data in stream:
            header = get_header(stream)
            assert header is not None
            assert stream.extra(ProxyAttribute.header) == header
            await stream.send(f"{header.authority} ".encode() + data)


def run(
    backend: dict[str, Any], serving: Any, listener: Listener, handler: Any, client: Callable[[], None]
) -> None:
    """Serve a client that runs in a thread, then drain. The server must end."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serving.serve, handler)
            await run_beside(client)
            listener.drain()
        await serving.aclose()

    anyio.run(main, **backend)
    assert (listener.stats().open, listener.fileno()) == (0, -1)


@on_each_backend
def test_streams_know_the_client(backend: dict[str, Any], listener: Listener) -> None:
    seen: list[Any] = []
    ends: list[Any] = []
    address = listener.getsockname()

    async def handler(stream: anyio.abc.SocketStream) -> None:
        for name in ("remote_address", "remote_port", "local_address", "local_port"):
            seen.append(stream.extra(getattr(SocketAttribute, name)))
        seen.append(stream.extra(ProxyAttribute.proxy_remote_address))
        seen.append(stream.extra(ProxyAttribute.proxy_local_address))
        await echo(stream)

    def client() -> None:
        with Peer(listener.getsockname(), WITH_TLS.raw, b"ping") as peer:
            assert peer.sock.recv(100) == b"shop.example ping"
            peer.end()
            assert peer.sees_the_end()
            ends.append(peer.sock.getsockname())

    run(backend, SocketListener(listener), listener, handler, client)
    assert seen[:4] == [CLIENT, CLIENT[1], SERVER, SERVER[1]]
    assert seen[4:] == [*ends, address]


@on_each_backend
def test_tls_begins_behind_the_header(
    backend: dict[str, Any], listener: Listener, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts
    listener.update(max_connections_per_client=1)

    def client() -> None:
        with Peer(listener.getsockname()) as peer:
            tls = TlsPeer(peer, client_context, before=WITH_TLS.raw)
            tls.send(b"ping")
            assert tls.receive() == b"shop.example ping"
            assert listener.stats().open == 1

    serving = TLSListener(SocketListener(listener), server_context, standard_compatible=False)
    run(backend, serving, listener, echo, client)


HEADERS: dict[str, tuple[bytes, Any]] = {
    "inet6": (Header.v2(("2001:db8::1", 1, 0, 0), ("2001:db8::2", 2, 0, 0)).raw, ("2001:db8::1", 1)),
    "unix": (Header.v2("/client", "/server").raw, "/client"),
    "local": (LOCAL, None),
}


@on_each_backend
@pytest.mark.parametrize(("header", "address"), HEADERS.values(), ids=list(HEADERS))
def test_other_addresses(backend: dict[str, Any], header: bytes, address: Any, listener: Listener) -> None:
    async def main() -> None:
        with Peer(listener.getsockname(), header) as peer:
            async with SocketListener(listener) as serving, await serving.accept() as stream:
                seen = stream.extra(SocketAttribute.remote_address)
                assert seen == (address or peer.sock.getsockname())

    anyio.run(main, **backend)


@on_each_backend
def test_a_unix_listener(backend: dict[str, Any], tmp_path: Path) -> None:
    async def main() -> None:
        listener = Listener.unix(tmp_path / "socket")
        with Peer(listener.getsockname(), V2, b"x"):
            async with SocketListener(listener) as serving, await serving.accept() as stream:
                assert stream.extra(SocketAttribute.remote_address) == CLIENT
                assert await stream.receive() == b"x"

    anyio.run(main, **backend)


@on_each_backend
def test_a_connection_that_was_accepted_by_hand(backend: dict[str, Any], listener: Listener) -> None:
    async def main() -> None:
        with Peer(listener.getsockname(), WITH_TLS.raw, b"x") as peer:
            async for conn in listener:
                async with await SocketStream.of(conn) as stream:
                    await stream.send(await stream.receive())
                    assert peer.sock.recv(1) == b"x"
                break

    anyio.run(main, **backend)


def test_without_anyio_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyio", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.anyio")
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.anyio needs anyio: pip install anyio$"):
        importlib.import_module("proxyproto_rs.anyio")
