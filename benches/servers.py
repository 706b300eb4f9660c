"""The servers that are measured, one in each process. Each answers a line with a line, and closes.

    python benches/servers.py NAME[, uvloop][, fresh]

Prints its address and serves until its input ends. Each server asks for the client's address, as a server that uses the
PROXY protocol does.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REPLY = b"pong\r\n"
BACKLOG = 1024
FRESH = ", fresh"  # a process that has not freed anything large yet


class Answer(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.client = transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\n"):
            self.transport.write(REPLY)
            self.transport.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("peername")
    await reader.readline()
    writer.write(REPLY)
    writer.close()


def ours(**options: Any) -> Any:
    from proxyproto_rs import Listener

    return Listener("127.0.0.1", 0, backlog=BACKLOG, trusted=["127.0.0.0/8"], **options)


async def bare_create_server() -> Any:
    return await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=BACKLOG)


async def bare_start_server() -> Any:
    return await asyncio.start_server(answer, "127.0.0.1", 0, backlog=BACKLOG)


async def ours_create_server() -> Any:
    return await ours().create_server(Answer)


async def ours_eager() -> Any:
    """For silent connections: with deferred accept the kernel would hold them back for a second."""
    return await ours(defer_accept=False, max_pending=20_000, header_timeout=60.0).create_server(Answer)


async def ours_start_server() -> Any:
    return await ours().start_server(answer)


async def ours_sock_create_server() -> Any:
    return await asyncio.get_running_loop().create_server(Answer, sock=ours())


async def ours_sock_start_server() -> Any:
    return await asyncio.start_server(answer, sock=ours())


async def ours_on_demand() -> Any:
    return await ours(ahead=0).create_server(Answer)


async def ours_sock_on_demand() -> Any:
    return await asyncio.start_server(answer, sock=ours(ahead=0))


async def icgood() -> Any:
    from proxyprotocol.detect import ProxyProtocolDetect
    from proxyprotocol.reader import ProxyProtocolReader

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: Any) -> None:
        _ = info.peername
        await reader.readline()
        writer.write(REPLY)
        writer.close()

    callback = ProxyProtocolReader(ProxyProtocolDetect()).get_callback(connected, timeout=60)
    return await asyncio.start_server(callback, "127.0.0.1", 0, backlog=BACKLOG)


async def aiosmtpd() -> Any:
    from aiosmtpd.proxy_protocol import get_proxy

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As its SMTP class does it.
        proxy = await asyncio.wait_for(get_proxy(reader), timeout=60)
        if not proxy.valid:
            writer.close()
            return
        _ = (str(proxy.src_addr), proxy.src_port)
        await answer(reader, writer)

    return await asyncio.start_server(connected, "127.0.0.1", 0, backlog=BACKLOG)


def twisted() -> None:
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import endpoints, protocol, reactor

    class TwistedAnswer(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.getPeer()
            if data.endswith(b"\n"):
                self.transport.write(REPLY)
                self.transport.loseConnection()

    def listening(port: Any) -> None:
        print(f"127.0.0.1:{port.getHost().port}", flush=True)

    endpoint = endpoints.serverFromString(reactor, f"haproxy:tcp:0:interface=127.0.0.1:backlog={BACKLOG}")
    endpoint.listen(protocol.Factory.forProtocol(TwistedAnswer)).addCallback(listening)
    watch_input(lambda: reactor.callFromThread(reactor.stop))
    reactor.run()


SERVERS: dict[str, Callable[[], Awaitable[Any]]] = {
    "bare create_server": bare_create_server,
    "bare start_server": bare_start_server,
    "create_server": ours_create_server,
    "create_server, eager": ours_eager,
    "create_server, on demand": ours_on_demand,
    "start_server(sock=), on demand": ours_sock_on_demand,
    "start_server": ours_start_server,
    "create_server(sock=)": ours_sock_create_server,
    "start_server(sock=)": ours_sock_start_server,
    "icgood start_server": icgood,
    "aiosmtpd start_server": aiosmtpd,
}


async def serve(make_server: Callable[[], Awaitable[Any]]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    watch_input(lambda: loop.call_soon_threadsafe(ended.set_result, None))
    server = await make_server()
    host, port, *_ = server.sockets[0].getsockname()
    # The collector need not look again and again at what the imports have made.
    gc.collect()
    gc.freeze()
    print(f"{host}:{port}", flush=True)
    await ended
    server.close()


def watch_input(ended: Callable[[], Any]) -> None:
    def wait() -> None:
        sys.stdin.read()
        ended()

    threading.Thread(target=wait, daemon=True).start()


def raise_mmap_threshold() -> None:
    """Free something larger than 128 KiB, once, as every long-lived process does at some time.

    From then on glibc keeps blocks of that size. Before, each of the 256 KiB that asyncio offers to a read is a
    mapping of its own, made and given back for each connection.
    """
    del (block := bytearray(4 * 1024 * 1024))[:]
    del block


def main() -> None:
    name = sys.argv[1]
    if name.endswith(FRESH):
        name = name.removesuffix(FRESH)
    else:
        raise_mmap_threshold()
    if name == "twisted":
        twisted()
    elif name.endswith(", uvloop"):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(SERVERS[name.removesuffix(", uvloop")]))
    else:
        asyncio.run(serve(SERVERS[name]))


if __name__ == "__main__":
    main()
