"""What listener tests serve: protocols and handlers that show what they were given."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, SERVER
from proxyproto_rs import Header, Listener, get_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


HEADER = Header.v2(CLIENT, SERVER)

on_asyncio = pytest.mark.asyncio(loop_factories=["asyncio"])
on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])


class Echo(asyncio.Protocol):
    """Sends back what comes. Tests can wait for its transport and for its end."""

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


async def serve_one(
    listener: Listener,
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    client: Callable[[], Awaitable[None]],
    **keywords: Any,
) -> None:
    """Run the handler and the client to their ends. An error in either is raised here."""
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
