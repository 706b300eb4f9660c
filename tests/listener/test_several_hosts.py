"""create_server and start_server of the package: one server on several addresses."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

import proxyproto_rs
from peers import CLIENT, V2, Peer, connected, turn_until
from proxyproto_rs import ClientLimits, Listener, Server

LOOPBACK = ["127.0.0.0/8", "::1"]
NAMES = {
    "both.example": ["127.0.0.1", "::1"],
    "half.example": ["192.0.2.77", "127.0.0.1"],
    "none.example": ["192.0.2.77"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that no resolver is asked for. 192.0.2.77 is no address of this machine."""
    getaddrinfo = socket.getaddrinfo

    def resolve(host: str, port: Any, *, type: int, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST or host not in NAMES:
            return getaddrinfo(host, port, type=type, flags=flags)
        return [found for address in NAMES[host] for found in getaddrinfo(address, port, type=type)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(writer.get_extra_info("peername")[0].encode())
    writer.close()


def start(host: Any, **keywords: Any) -> Any:
    return proxyproto_rs.start_server(tell, host, 0, **{"trusted": LOOPBACK, **keywords})


def addresses(server: Server) -> list[Any]:
    return [sock.getsockname() for sock in server.sockets]


def hosts(server: Server) -> list[str]:
    return [address[0] for address in addresses(server)]


async def assert_serves(address: Any) -> None:
    async with connected(address, V2) as (reader, _):
        assert (await reader.read()).decode() == CLIENT[0]


HOSTS = [
    (["127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
    (("127.0.0.1", "127.0.0.2", "127.0.0.1"), ["127.0.0.1", "127.0.0.2"]),
    ("127.0.0.1", ["127.0.0.1"]),
    ("both.example", ["127.0.0.1", "::1"]),
    (["::1", "both.example"], ["::1", "127.0.0.1"]),
    ("half.example", ["127.0.0.1"]),
    (None, ["::"]),
    ("", ["::"]),
]


@pytest.mark.parametrize(("host", "expected"), HOSTS, ids=[str(host) for host, _ in HOSTS])
async def test_one_server_serves_every_address(host: Any, expected: list[str]) -> None:
    async with start(host) as server:
        assert isinstance(server, Server)
        assert hosts(server) == expected
        for address in addresses(server):
            await assert_serves(address)
        await turn_until(lambda: all(listener.stats().open == 0 for listener in server.listeners))
    assert server.sockets == ()
    assert {listener.fileno() for listener in server.listeners} == {-1}


async def test_protocols_are_served_too() -> None:
    class Tell(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(transport.get_extra_info("peername")[0].encode())
            transport.close()

    server = await proxyproto_rs.create_server(Tell, ["127.0.0.1", "::1"], 0, trusted=LOOPBACK)
    async with server:
        for address in addresses(server):
            await assert_serves(address)


async def test_every_address_has_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        async with proxyproto_rs.start_server(
            tell, ["127.0.0.2", "127.0.0.3"], port, trusted=LOOPBACK
        ) as server:
            assert addresses(server) == [("127.0.0.2", port), ("127.0.0.3", port)]


async def test_the_server_goes_on_until_the_last_listener_is_closed() -> None:
    async with start(["127.0.0.1", "::1"]) as server:
        first, second = server.listeners
        first.close()
        await assert_serves(second.getsockname())
        assert server.is_serving()
        second.drain()
        await turn_until(lambda: not server.is_serving())
        await server.wait_closed()


async def test_drain_ends_a_server_that_was_asked_for_nothing_else() -> None:
    async with start(["127.0.0.1", "::1"]) as server:
        with Peer(server.listeners[1].getsockname()) as late:
            await turn_until(lambda: server.listeners[1].stats().pending == 1)
            server.drain()
            await turn_until(lambda: server.listeners[0].fileno() == -1)
            assert server.is_serving()
            late.send(V2)
            await turn_until(lambda: not server.is_serving())
        await server.wait_closed()
        await turn_until(lambda: server.listeners[1].stats().open == 0)


async def test_serving_starts_when_told() -> None:
    async with start(["127.0.0.1", "::1"], start_serving=False) as server:
        assert not server.is_serving()
        await server.start_serving()
        for address in addresses(server):
            await assert_serves(address)


async def test_the_listeners_share_lists_and_limits() -> None:
    limits = ClientLimits(max_connections=1)
    # An iterator can be read once.
    async with start(
        ["127.0.0.1", "127.0.0.2"], trusted=iter(LOOPBACK), deny=iter(["10.0.0.0/8"]), client_limits=limits
    ) as server:
        first, second = (listener.options for listener in server.listeners)
        assert list(first["trusted"]) == list(second["trusted"]) == ["127.0.0.0/8", "::1"]
        first["deny"].add("192.0.2.1")
        assert "192.0.2.1" in second["deny"]
        assert first["client_limits"] is second["client_limits"] is limits


async def test_options_are_those_of_a_listener() -> None:
    refused: list[Any] = []
    async with start("127.0.0.1", backlog=7, on_refused=refused.append, untrusted="direct") as server:
        (listener,) = server.listeners
        assert isinstance(listener, Listener)
        assert listener.options["untrusted"] == "direct"
        assert listener.on_refused == refused.append


async def test_nothing_is_left_open_when_an_address_is_taken() -> None:
    # Addresses of its own: on 127.0.0.1 the port that the kernel gives for the other one may be taken.
    with socket.create_server(("127.0.0.78", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"attempting to bind on address \('127\.0\.0\.78', ") as caught:
            await proxyproto_rs.start_server(tell, ["127.0.0.77", "127.0.0.78"], port, trusted=LOOPBACK)
    assert caught.value.errno == errno.EADDRINUSE
    Listener("127.0.0.77", port, trusted=[]).close()


@pytest.mark.parametrize("host", ["192.0.2.77", "none.example", ["127.0.0.1", "none.example"]])
async def test_a_host_that_is_not_here_is_an_error(host: Any) -> None:
    with pytest.raises(OSError, match=r"attempting to bind on address \('192\.0\.2\.77', ") as caught:
        await start(host)
    assert caught.value.errno == errno.EADDRNOTAVAIL


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"host": []}, ValueError, "^host must be one host or more, not none$"),
    ({"host": 5}, TypeError, "'int' object is not iterable"),
    ({"port": "80"}, TypeError, "port must be an int, not str"),
    ({"port": 65536}, OverflowError, "port must be 0-65535, not 65536"),
    ({"trusted": ["10.0.0.1/8"]}, ValueError, "has host bits set"),
    ({"truested": []}, TypeError, r"^start_server\(\) got an .* 'truested'\. Did you mean 'trusted'\?$"),
    ({"backlogg": 5}, TypeError, r"^start_server\(\) got an .* 'backlogg'\. Did you mean 'backlog'\?$"),
    ({"limt": 5}, TypeError, r"^start_server\(\) got an .* 'limt'\. Did you mean 'limit'\?$"),
    ({"ssl_handshake_timeout": 5}, ValueError, "only meaningful with ssl"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), WRONG, ids=[str(row[0]) for row in WRONG])
async def test_what_is_wrong_is_said(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"host": ["127.0.0.1", "::1"], "port": 0, "trusted": LOOPBACK, **arguments}
    with pytest.raises(error, match=text):
        await proxyproto_rs.start_server(tell, **arguments)


def test_a_listener_says_who_serves_several_hosts() -> None:
    with pytest.raises(
        TypeError, match=r"not list: a Listener is one socket\. proxyproto_rs\.start_server\(\)"
    ):
        Listener(["127.0.0.1", "::1"], 0)  # type: ignore[arg-type]


async def test_it_warns_when_nobody_awaits_it() -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'start_server' was never awaited"):
        start("127.0.0.1")  # nothing keeps it
