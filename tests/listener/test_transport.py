"""What uvloop uses in place of a socket, and what its transports show as their socket."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, SERVER, V2, connected, turn_until
from proxyproto_rs import Header, Listener, get_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])


class Echo(asyncio.Protocol):
    """Leaves its transport, and closes it after the first answer."""

    def __init__(self, transports: list[Any]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._transports[-1].write(data)
        self._transports[-1].close()


@pytest.fixture
async def transports(listener: Listener) -> AsyncIterator[list[Any]]:
    made: list[Any] = []
    async with await listener.create_server(lambda: Echo(made)):
        yield made


async def test_a_transport_has_a_socket_with_the_clients_address(
    listener: Listener, transports: list[Any]
) -> None:
    async with connected(listener.getsockname(), V2) as (reader, writer):
        await turn_until(lambda: len(transports) == 1)
        (transport,) = transports
        sock = transport.get_extra_info("socket")
        assert sock.getpeername() == CLIENT
        assert sock.getsockname() == SERVER
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert transport.get_extra_info("socket").fileno() == sock.fileno()
        assert transport.get_extra_info("proxy_sockname") == writer.get_extra_info("peername")
        writer.write(b"x")
        assert await reader.read() == b"x"
    await turn_until(lambda: sock.fileno() == -1)
    assert listener.stats().open == 0


async def test_asking_for_the_socket_costs_no_fd(listener: Listener, transports: list[Any]) -> None:
    async with connected(listener.getsockname(), V2):
        await turn_until(lambda: len(transports) == 1)
        before = os.listdir("/proc/self/fd")
        assert get_header(transports[0].get_extra_info("socket")) == Header.v2(CLIENT, SERVER)
        assert os.listdir("/proc/self/fd") == before


async def test_of_a_closed_connection_nobody_gets_a_socket(listener: Listener, transports: list[Any]) -> None:
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        assert await reader.read() == b"x"
    await turn_until(lambda: listener.stats().open == 0)
    (transport,) = transports
    assert transport.get_extra_info("socket") is None
    assert transport.get_extra_info("proxy_sockname") == listener.getsockname()
    assert transport.get_extra_info("peername") == CLIENT


async def test_of_a_closed_unix_connection_the_kernel_says_nothing(tmp_path: Path) -> None:
    transports: list[Any] = []
    with Listener.unix(tmp_path / "socket") as listener:
        async with await listener.create_server(lambda: Echo(transports)):
            reader, writer = await asyncio.open_unix_connection(listener.getsockname())
            writer.write(LOCAL + b"x")
            assert await reader.read() == b"x"
            writer.close()
            await turn_until(lambda: listener.stats().open == 0)
    for name in ("peername", "sockname", "proxy_sockname"):
        assert transports[0].get_extra_info(name, "none") == "none", name


async def test_a_connection_that_uvloop_never_got_is_closed(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    def factory() -> asyncio.Protocol:
        raise LookupError("no protocol")

    async with await listener.create_server(factory):
        async with connected(listener.getsockname(), V2) as (reader, _):
            assert await reader.read() == b""
        assert str(loop_errors.pop()["exception"]) == "no protocol"
        assert listener.stats().open == 0


# uvloop says so of the transport that it could not open.
@pytest.mark.filterwarnings("ignore:unclosed resource <TCPTransport:ResourceWarning")
async def test_an_fd_that_uvloop_refuses_is_closed(
    listener: Listener, loop_errors: list[dict[str, Any]]
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        await listener.create_server(asyncio.Protocol),
        connected(listener.getsockname()) as (reader, writer),
    ):
        # The application makes a mistake: it closes an fd that the loop still watches, and the next fd gets the same number.
        number, other = os.pipe()
        watched = asyncio.Event()
        loop.add_reader(number, watched.set)
        os.write(other, b"x")
        await watched.wait()
        os.close(number)
        writer.write(V2)
        assert await reader.read() == b""
        loop.remove_reader(number)
        os.close(other)
    assert isinstance(loop_errors.pop()["exception"], FileExistsError)
    assert listener.stats().open == 0
