"""What uvloop has in place of a socket, and the socket that is made of it when somebody asks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, SERVER, V2, connected, turn_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxyproto_rs import Listener

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


async def test_of_a_closed_connection_nobody_gets_a_socket(listener: Listener, transports: list[Any]) -> None:
    async with connected(listener.getsockname(), V2, b"x") as (reader, _):
        assert await reader.read() == b"x"
    await turn_until(lambda: listener.stats().open == 0)
    (transport,) = transports
    assert transport.get_extra_info("socket") is None
    assert transport.get_extra_info("proxy_sockname") == listener.getsockname()
    assert transport.get_extra_info("peername") == CLIENT


async def test_the_fd_is_closed_once(listener: Listener, transports: list[Any]) -> None:
    async with connected(listener.getsockname(), V2) as (reader, writer):
        await turn_until(lambda: len(transports) == 1)
        transport = transports[0].get_extra_info("wrapped_transport")
        number = transport.get_extra_info("socket").fileno()
        writer.write(b"x")
        assert await reader.read() == b"x"
        await turn_until(lambda: listener.stats().open == 0)
        # Somebody else's now, and whoever closes the number again closes that.
        os.dup2(writer.get_extra_info("socket").fileno(), number)
        del transport
        transports.clear()
        gc.collect()
        os.fstat(number)
        os.close(number)


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
