"""Libraries that take a socket, or have a protocol of asyncio's, work with a Listener as they are."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import peers
from integrations.asking import WITH_TLS
from proxyproto_rs import get_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proxyproto_rs import Listener

Serving = contextlib.AbstractAsyncContextManager[None]
Tls = ssl.SSLContext | None


def answer(host: str, connection: object) -> str:
    """What a server tells its client: the address, and what the header says."""
    header = get_header(connection)
    return f"{host} {header and header.authority}"


ANSWER = "192.0.2.1 shop.example"


@contextlib.asynccontextmanager
async def serving_aioftp(listener: Listener, tls: Tls) -> AsyncIterator[None]:
    aioftp = pytest.importorskip("aioftp")

    class Server(aioftp.Server):  # type: ignore[misc, name-defined]
        async def greeting(self, connection: Any, rest: Any) -> Any:
            stream = connection.command_connection
            connection.response("220", answer(connection.client_host, stream.writer))
            return True

    server = Server(ssl=tls)
    await server.start(port=None, sock=listener)
    try:
        yield
    finally:
        await server.close()


def ask_ftp(listener: Listener, tls: Tls) -> str:
    with connecting(listener, tls) as sock, sock.makefile("rw", newline="\r\n") as lines:
        greeting: str = lines.readline()
        lines.write("QUIT\r\n")
        lines.flush()
        assert lines.readline().startswith("221")
        return greeting.removeprefix("220 ").strip()


class Mail:
    """A handler of aiosmtpd that tells its clients who they are."""

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: str) -> str:
        return f"250 {answer(session.peer[0], server)}"


def serving_aiosmtpd(listener: Listener, tls: Tls) -> Serving:
    smtp = pytest.importorskip("aiosmtpd.smtp")

    # TLS begins with STARTTLS.
    loop = asyncio.get_running_loop()
    return serving_protocol(listener, lambda: smtp.SMTP(Mail(), hostname="here", tls_context=tls, loop=loop))


def ask_smtp(listener: Listener, tls: Tls) -> str:
    with smtplib.SMTP() as smtp:
        smtp.sock = connecting(listener)
        smtp._host = "localhost"  # type: ignore[attr-defined] # the name in the certificate
        assert smtp.getreply()[0] == 220
        if tls is not None:
            smtp.starttls(context=tls)
        smtp.ehlo("client")
        return smtp.noop()[1].decode()


@contextlib.asynccontextmanager
async def serving_asyncssh(listener: Listener, tls: Tls) -> AsyncIterator[None]:
    asyncssh = pytest.importorskip("asyncssh")

    def who(process: Any) -> None:
        process.stdout.write(answer(process.get_extra_info("peername")[0], process))
        process.exit(0)

    class Server(asyncssh.SSHServer):  # type: ignore[misc, name-defined]
        def begin_auth(self, username: str) -> bool:
            return False

    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen(
        sock=listener, server_factory=Server, server_host_keys=[key], process_factory=who
    ):
        yield


def ask_ssh(listener: Listener, tls: Tls) -> str:
    asyncssh = pytest.importorskip("asyncssh")

    async def ask() -> str:
        sock = connecting(listener)
        sock.setblocking(False)
        async with asyncssh.connect(sock=sock, known_hosts=None, username="x", config=None) as client:
            return str((await client.run("who")).stdout)

    return asyncio.run(ask())


@contextlib.asynccontextmanager
async def serving_grpclib(listener: Listener, tls: Tls) -> AsyncIterator[None]:
    const, grpclib_server = pytest.importorskip("grpclib.const"), pytest.importorskip("grpclib.server")

    class Service:
        async def who(self, stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(stream.peer.addr()[0].encode())

        def __mapping__(self) -> dict[str, Any]:
            return {"/Service/Who": const.Handler(self.who, const.Cardinality.UNARY_UNARY, None, None)}

    server = grpclib_server.Server([Service()], codec=Raw())
    await server.start(sock=listener, ssl=tls)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


class Raw:
    """A codec of grpclib's: messages are bytes."""

    __content_subtype__ = "raw"

    def encode(self, message: bytes, message_type: Any) -> bytes:
        return message

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


def ask_grpc(listener: Listener, tls: Tls) -> str:
    client = pytest.importorskip("grpclib.client")

    class Channel(client.Channel):  # type: ignore[misc, name-defined]
        async def _create_connection(self) -> Any:
            sock = connecting(listener)
            name = "localhost" if tls else None
            transport, protocol = await self._loop.create_connection(
                self._protocol_factory, sock=sock, ssl=tls, server_hostname=name
            )
            transports.append(transport)
            return protocol

    transports: list[asyncio.Transport] = []

    async def ask() -> str:
        async with Channel(ssl=tls, codec=Raw()) as channel:
            who = client.UnaryUnaryMethod(channel, "/Service/Who", None, None)
            answer: bytes = await who(b"who")
        transports[0].abort()
        return answer.decode()

    return asyncio.run(ask())


@contextlib.asynccontextmanager
async def serving_pymodbus(listener: Listener, tls: Tls) -> AsyncIterator[None]:
    pymodbus = pytest.importorskip("pymodbus.server")
    simulator = pytest.importorskip("pymodbus.simulator")

    async def read(function: int, start: int, address: int, count: int, registers: Any, values: Any) -> None:
        (connection,) = server.active_connections.values()
        client = connection.transport.get_extra_info("peername")[0]
        assert answer(client, connection) == ANSWER
        registers[:4] = map(int, client.split("."))

    registers = simulator.SimData(0, values=[0] * 4, datatype=simulator.DataType.REGISTERS)
    server = pymodbus.ModbusTcpServer(simulator.SimDevice(1, simdata=[registers], action=read))
    async with serving_protocol(listener, server.handle_new_connection, tls):
        yield


def ask_modbus(listener: Listener, tls: Tls) -> str:
    with connecting(listener, tls) as sock:
        # Read 4 holding registers of unit 1, from address 0.
        sock.sendall(bytes.fromhex("0001 0000 0006 01 03 0000 0004"))
        answer = sock.recv(100)
        assert answer[:9].hex() == "00010000000b010308"
        return ".".join(str(octet) for octet in answer[10::2])


@contextlib.asynccontextmanager
async def serving_protocol(listener: Listener, factory: Any, tls: Tls = None) -> AsyncIterator[None]:
    server = await listener.create_server(factory, ssl=tls)
    try:
        yield
    finally:
        server.close()


def connecting(listener: Listener, tls: Tls = None) -> socket.socket:
    sock = socket.create_connection(listener.getsockname(), 20)
    sock.sendall(WITH_TLS.raw)
    return sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")


class Library(NamedTuple):
    name: str
    serving: Callable[[Listener, Tls], Serving]
    ask: Callable[[Listener, Tls], str]
    has_tls: bool = True
    answer: str = ANSWER


LIBRARIES = [
    Library("aioftp", serving_aioftp, ask_ftp),
    Library("aiosmtpd", serving_aiosmtpd, ask_smtp),
    Library("asyncssh", serving_asyncssh, ask_ssh, has_tls=False),
    Library("grpclib", serving_grpclib, ask_grpc, answer="192.0.2.1"),  # it shows nothing but the address
    Library("pymodbus", serving_pymodbus, ask_modbus, answer="192.0.2.1"),  # its registers hold numbers
]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return peers.make_contexts(tmp_path_factory.mktemp("tls"))


on_both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "proxyproto_rs.uvloop"])


@on_both_loops
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
async def test_the_client_is_seen(library: Library, listener: Listener) -> None:
    async with library.serving(listener, None):
        assert await asyncio.to_thread(library.ask, listener, None) == library.answer


@on_both_loops
@pytest.mark.parametrize(
    "library", [library for library in LIBRARIES if library.has_tls], ids=lambda library: library.name
)
async def test_the_client_is_seen_over_tls(
    library: Library, listener: Listener, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = contexts
    async with library.serving(listener, server):
        assert await asyncio.to_thread(library.ask, listener, client) == library.answer
