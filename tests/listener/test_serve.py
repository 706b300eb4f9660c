"""The servers of a Listener on asyncio and uvloop: what protocols, transports and streams see."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, LOCAL, SERVER, V2, Peer, connected, turn_until
from proxyproto_rs import Header, Listener, get_header, open_streams
from served import HEADER, Echo, expected_info, extra_info, serve_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    """All are there before the loop looks. Each turn of the loop takes 100 of them, so that others get their turn."""
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


async def test_transports_are_objects_to_keep(listener: Listener) -> None:
    """Libraries compare them, and keep them in weak sets."""
    made: asyncio.Queue[Echo] = asyncio.Queue()
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    async with (
        listener.create_server(lambda: Echo(made)),
        connected(listener.getsockname(), V2),
    ):
        transport = (await made.get()).transport
        assert weakref.ref(transport)() is transport
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as other:
        async with (
            other.start_server(lambda _, writer: writers.put_nowait(writer)),
            connected(other.getsockname(), V2),
        ):
            writer = await writers.get()
            assert writer.transport is writer.transport
            assert weakref.ref(writer.transport)() is writer.transport
            writer.close()
            await writer.wait_closed()


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
            # asyncio closes it from Python 3.11 on. Before that, the callback must.
            writer.close()
            raise LookupError("in the callback")
        writer.write(await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()

    async with await listener.start_server(connected_cb):
        async with connected(listener.getsockname(), V2) as (reader, _):
            assert await reader.read() == b""
        gc.collect()  # Python 3.10's asyncio reports it only then
        assert [str(error["exception"]) for error in loop_errors] == ["in the callback"]
        loop_errors.clear()
        fail = False
        async with connected(listener.getsockname(), V2, b"x") as (reader, _):
            assert await reader.read() == b"x"
    await turn_until(lambda: listener.stats().open == 0)


async def test_what_a_factory_leaves_in_its_context_is_its_protocols_alone(listener: Listener) -> None:
    left: ContextVar[str] = ContextVar("left", default="nothing")
    made: asyncio.Queue[Echo] = asyncio.Queue()
    seen = []

    class Leaves(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(left.get())
            super().connection_made(transport)

    def factory() -> Leaves:
        seen.append(left.get())
        left.set("something")
        return Leaves(made)

    async with await listener.create_server(factory):
        for _ in range(2):
            async with connected(listener.getsockname(), V2):
                await made.get()
    assert seen == ["nothing", "something"] * 2


async def not_implemented(*_: object, **__: object) -> None:
    raise NotImplementedError


LOOPS_THAT_CANNOT = {
    "inherited": type("Unfinished", (asyncio.AbstractEventLoop,), {}),
    "own": type("Unfinished", (asyncio.AbstractEventLoop,), {"connect_accepted_socket": not_implemented}),
    "missing": type("Unfinished", (), {}),
}


@contextlib.contextmanager
def running(loop: Any) -> Iterator[None]:
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


@pytest.mark.parametrize("loop_class", LOOPS_THAT_CANNOT.values(), ids=LOOPS_THAT_CANNOT)
def test_a_loop_that_takes_no_connections_is_refused_at_once(
    listener: Listener, loop_class: Callable[[], Any]
) -> None:
    """It would lose every connection."""
    with Peer(listener.getsockname(), V2), listener.accept()[0] as conn, running(loop_class()):
        for starting in (listener.create_server(print), listener.start_server(print), open_streams(conn)):  # type: ignore[arg-type]
            with pytest.raises(NotImplementedError, match="a Unfinished cannot serve a Listener"):
                starting.send(None)


def test_any_loop_that_takes_connections_is_served(listener: Listener) -> None:
    class Other:
        """Of nobody's family."""

        connect_accepted_socket = asyncio.BaseEventLoop.connect_accepted_socket

        def is_closed(self) -> bool:
            return True

    with running(Other()), pytest.raises(StopIteration) as returned:
        listener.create_server(asyncio.Protocol, start_serving=False).send(None)
    returned.value.value.close()
