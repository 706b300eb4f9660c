"""Security holes that servers behind proxies have had, by number or name, and what a Listener does instead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from peers import CLIENT, LOCAL, SIGNATURE, V1, V2, Peer, connected
from proxyproto_rs import Listener, get_header

NLB_HEALTH_CHECK = bytes.fromhex("0d0a0d0a000d0a515549540a20110054030004bce5951f04004a") + bytes(74)

# The ways in which a server uses the Listener. Each must keep its promises.
SERVERS = ["create_server", "start_server", "sock"]


def test_cve_2021_23351_a_line_without_end(listener: Listener) -> None:
    """go-proxyproto read a version 1 line of any length. The Listener looks at no byte behind the 107th."""
    with Peer(listener.getsockname(), b"PROXY UNKNOWN ".ljust(106, b"x")) as peer:
        peer.send(b"x")
        assert peer.sees_the_end()
    assert listener.stats()["malformed"] == 1


def test_cve_2021_23409_no_header_timeout(listener: Listener) -> None:
    """go-proxyproto waited for ever unless a limit was set. Here there is always a limit."""
    assert listener.options["header_timeout"] == 5.0
    listener.update(header_timeout=0.05)
    for beginning in (b"", b"P", V1[:-1], V2[:-1]):
        with Peer(listener.getsockname(), beginning) as peer:
            assert peer.sees_the_end()
    assert listener.stats()["timeout"] == 4
    with pytest.raises(ValueError, match="header_timeout"):
        listener.update(header_timeout=0)


@pytest.mark.parametrize("health_check", [LOCAL, NLB_HEALTH_CHECK], ids=["empty", "aws-nlb"])
def test_a_crash_on_local_and_its_block_taken_for_the_client(listener: Listener, health_check: bytes) -> None:
    """After a health check the server still works, and the peer of the health check is the proxy (R23)."""
    for _ in range(3):
        with Peer(listener.getsockname(), health_check, b"payload") as peer:
            sock, address = listener.accept()
            with sock:
                assert address == sock.getpeername() == sock.proxy_peername == peer.sock.getsockname()
                assert sock.recv(100) == b"payload"
    with Peer(listener.getsockname(), V2):
        sock, address = listener.accept()
        sock.close()
    assert address == CLIENT
    assert listener.stats()["local"] == 3


def test_payload_read_as_addresses(listener: Listener) -> None:
    """A header whose length leaves no room for addresses does not take them from the bytes behind it."""
    with Peer(listener.getsockname(), SIGNATURE + b"\x21\x11\x00\x00" + V2[16:]) as peer:
        assert peer.sees_the_end()
    assert listener.stats()["malformed"] == 1


@pytest.mark.parametrize("server", SERVERS)
async def test_gunicorn_3620_the_trust_list_is_ignored(server: str) -> None:
    """gunicorn's ASGI worker believed headers from every peer, whatever its list of proxies said (R4)."""
    if server == "sock" and type(asyncio.get_running_loop()).__module__ == "uvloop":
        server = "start_server"  # uvloop users have this instead
    seen: list[Any] = []
    finished = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((writer.get_extra_info("peername"), get_header(writer), await reader.read()))
        writer.close()
        finished.set()

    class Protocol(asyncio.StreamReaderProtocol):
        def __init__(self) -> None:
            super().__init__(asyncio.StreamReader(), serve)

    with Listener("127.0.0.1", 0, trusted=["192.0.2.0/24", "127.0.0.2"]) as listener:
        match server:
            case "create_server":
                running: Any = await listener.create_server(Protocol)
            case "start_server":
                running = await listener.start_server(serve)
            case _:
                running = await asyncio.start_server(serve, sock=listener)
        async with running:
            # The peer is 127.0.0.1, which is not on the list. It is refused, and its bytes are not read.
            async with connected(listener.getsockname(), V2) as (reader, _):
                assert await ends(reader)
            assert listener.stats()["untrusted"] == 1
            assert not seen

            # With "direct" it is served under its own address, and its bytes stay as they are.
            listener.update(untrusted="direct")
            async with connected(listener.getsockname(), V2) as (reader, writer):
                writer.write_eof()
                await finished.wait()
                assert seen == [(writer.get_extra_info("sockname"), None, V2)]
    assert (listener.stats()["untrusted"], listener.stats()["direct"]) == (1, 1)


async def ends(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True
