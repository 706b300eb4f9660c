"""`create_connection`, `open_connection` and `open_unix_connection` send the header first, then TLS.

If they fail, they leave nothing open.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import ssl
import struct
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header, Listener, create_connection, open_connection, open_unix_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeVar

    Result = TypeVar("Result")

HEADER = Header.v2(("192.0.2.1", 56324), ("198.51.100.2", 443), tlvs=[(0x02, b"example.com")])
LONG_HEADER = Header.v2(("192.0.2.1", 56324), ("198.51.100.2", 443), tlvs=[(0x04, bytes(65520))])

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@contextlib.contextmanager
def serve_one(
    serve: Callable[[socket.socket], Result], host: str = "127.0.0.1"
) -> Iterator[tuple[tuple[str, int], Future[Result]]]:
    """Yield the address of a server that serves one connection in a thread, and a future of what it returned."""
    with socket.create_server((host, 0)) as server, serve_one_of(server, serve) as served:
        yield server.getsockname()[:2], served


@contextlib.contextmanager
def serve_one_of(server: socket.socket, serve: Callable[[socket.socket], Result]) -> Iterator[Future[Result]]:
    with ThreadPoolExecutor(1) as executor:

        def accept() -> Result:
            conn, _ = server.accept()
            with conn:
                return serve(conn)

        served = executor.submit(accept)
        try:
            yield served
        finally:
            # End an accept() to which nobody has connected.
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def receive_all(conn: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := conn.recv(65536):
            received += chunk
    return received


def receive_exactly(conn: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (chunk := conn.recv(size - len(received))):
        received += chunk
    return received


def echo(conn: socket.socket, expected: Header = HEADER) -> bytes:
    """Read the header, then send back everything that follows it."""
    header = receive_exactly(conn, len(expected.raw))
    while chunk := conn.recv(65536):
        conn.sendall(chunk)
    return header


class TestCreateConnection:
    @pytest.mark.parametrize("header", [HEADER, LONG_HEADER, Header.unknown()], ids=["v2", "long", "v1"])
    def test_header_comes_first(self, header: Header) -> None:
        with serve_one(receive_all) as (address, received):
            with create_connection(address, header=header) as sock:
                assert type(sock) is socket.socket
                assert sock.getpeername() == address
                sock.sendall(b"payload")
            assert received.result() == header.raw + b"payload"

    def test_a_listener_believes_it(self) -> None:
        with (
            Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener,
            create_connection(listener.getsockname(), header=HEADER),
        ):
            conn, address = listener.accept()
            with conn:
                assert address == conn.getpeername() == ("192.0.2.1", 56324)
                assert conn.header == HEADER

    def test_timeout_and_source_address(self) -> None:
        with serve_one(receive_all) as (address, received):
            with create_connection(address, 30, ("127.0.0.2", 0), header=HEADER) as sock:
                assert sock.gettimeout() == 30
                assert sock.getsockname()[0] == "127.0.0.2"
            assert received.result() == HEADER.raw

    def test_default_timeout(self) -> None:
        with serve_one(receive_all) as (address, _), create_connection(address, header=HEADER) as sock:
            assert sock.gettimeout() is socket.getdefaulttimeout() is None

    @pytest.mark.skipif(
        sys.version_info < (3, 11), reason="socket.create_connection has all_errors from 3.11 on"
    )
    def test_all_errors(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(ExceptionGroup):  # type: ignore[name-defined, unused-ignore] # noqa: F821
                create_connection(bound.getsockname(), header=HEADER, all_errors=True)

    def test_refused(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                create_connection(bound.getsockname(), header=HEADER)

    def test_a_failed_send_closes_the_socket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing(socket.socket):
            def sendall(self, *_: object) -> None:
                raise BrokenPipeError

        sock = Failing()
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: sock)
        with pytest.raises(BrokenPipeError):
            create_connection(("127.0.0.1", 1), header=HEADER)
        assert sock.fileno() == -1

    @pytest.mark.parametrize("header", [None, b"PROXY UNKNOWN\r\n", ("192.0.2.1", 1)], ids=repr)
    def test_header_of_a_wrong_type_connects_to_nobody(self, header: Any) -> None:
        kind = type(header).__name__
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            with pytest.raises(TypeError, match=f"^header must be a Header, not {kind}$"):
                create_connection(server.getsockname(), header=header)
            with pytest.raises(BlockingIOError):
                server.accept()

    def test_takes_what_the_function_of_socket_takes(self) -> None:
        assert positional(create_connection) == positional(socket.create_connection)


class TestOpenConnection:
    @pytest.mark.parametrize("header", [HEADER, LONG_HEADER, Header.unknown()], ids=["v2", "long", "v1"])
    async def test_header_comes_first(self, header: Header) -> None:
        with serve_one(receive_all) as (address, received):
            _, writer = await open_connection(*address, header=header)
            assert writer.get_extra_info("peername") == address
            writer.write(b"payload")
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == header.raw + b"payload"

    async def test_streams_work(self) -> None:
        with serve_one(echo) as (address, received):
            reader, writer = await open_connection(*address, header=HEADER, limit=1024)
            data = bytes(range(256)) * 4096
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == HEADER.raw

    async def test_limit(self) -> None:
        with serve_one(echo) as (address, _):
            reader, writer = await open_connection(*address, header=HEADER, limit=100)
            writer.write(b"x" * 1000 + b"\n")
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            writer.close()
            await writer.wait_closed()

    async def test_of_a_connected_socket(self) -> None:
        with serve_one(receive_all) as (address, received):
            sock = socket.create_connection(address)
            sock.setblocking(False)
            _, writer = await open_connection(sock=sock, header=HEADER)
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == HEADER.raw

    async def test_options_of_the_loop(self) -> None:
        with serve_one(receive_all) as (address, _):
            options: dict[str, Any] = {"family": socket.AF_INET, "local_addr": ("127.0.0.2", 0)}
            _, writer = await open_connection(*address, header=HEADER, **options)
            assert writer.get_extra_info("sockname")[0] == "127.0.0.2"
            writer.close()
            await writer.wait_closed()

    async def test_refused(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await open_connection(*bound.getsockname(), header=HEADER)

    @pytest.mark.parametrize("header", [None, b"PROXY UNKNOWN\r\n"], ids=repr)
    async def test_header_of_a_wrong_type_connects_to_nobody(self, header: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            with pytest.raises(TypeError, match=f"^header must be a Header, not {type(header).__name__}$"):
                await open_connection(*server.getsockname(), header=header)
            with pytest.raises(BlockingIOError):
                server.accept()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"server_hostname": "localhost"}, "server_hostname is only meaningful with ssl"),
            ({"ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful with ssl"),
        ],
    )
    async def test_options_of_tls_without_tls(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=f"^{text}$"):
            await open_connection("127.0.0.1", 1, header=HEADER, **options)

    def test_takes_what_the_function_of_asyncio_takes(self) -> None:
        assert positional(open_connection) == positional(asyncio.open_connection)


class TestOpenConnectionWithTls:
    @pytest.mark.parametrize("header", [HEADER, LONG_HEADER], ids=["short", "long"])
    async def test_header_comes_before_the_handshake(self, tls_contexts: Contexts, header: Header) -> None:
        server_context, client_context = tls_contexts

        def serve(conn: socket.socket) -> bytes:
            received = receive_exactly(conn, len(header.raw))
            with server_context.wrap_socket(conn, server_side=True) as tls:
                while chunk := tls.recv(65536):
                    tls.sendall(chunk)
            return received

        with serve_one(serve) as (address, received):
            reader, writer = await open_connection(*address, header=header, ssl=client_context, limit=1024)
            assert writer.get_extra_info("ssl_object").server_hostname == "127.0.0.1"
            assert writer.get_extra_info("peercert")
            assert writer.get_extra_info("peername") == address
            data = bytes(range(256)) * 4096
            writing = asyncio.ensure_future(write(writer, data))
            assert await reader.readexactly(len(data)) == data
            await writing
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == header.raw

    @pytest.mark.parametrize(
        ("host", "name"),
        [("127.0.0.1", "other.example"), ("127.0.0.2", None)],
        ids=["server_hostname", "host"],
    )
    async def test_a_certificate_of_another_name(
        self, tls_contexts: Contexts, host: str, name: str | None
    ) -> None:
        server_context, client_context = tls_contexts
        with serve_one(handshake_with(server_context), host) as (address, received):
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_connection(*address, header=HEADER, ssl=client_context, server_hostname=name)
            assert await asyncio.wrap_future(received) == "failed"

    async def test_the_default_context_verifies(self, tls_contexts: Contexts) -> None:
        with serve_one(handshake_with(tls_contexts[0])) as (address, received):
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_connection(*address, header=HEADER, ssl=True)
            assert await asyncio.wrap_future(received) == "failed"

    async def test_no_name(self, tls_contexts: Contexts) -> None:
        server_context, _ = tls_contexts
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE
        with serve_one(handshake_with(server_context)) as (address, received):
            _, writer = await open_connection(*address, header=HEADER, ssl=unchecked, server_hostname="")
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == "done"

    async def test_a_socket_without_a_name(self, tls_contexts: Contexts) -> None:
        with (
            socket.socket() as sock,
            pytest.raises(
                ValueError, match=r"^server_hostname must be given when ssl is used without a host$"
            ),
        ):
            await open_connection(sock=sock, header=HEADER, ssl=tls_contexts[1])

    async def test_a_peer_that_does_not_answer(self, tls_contexts: Contexts) -> None:
        with serve_one(receive_all) as (address, received):
            with pytest.raises(ConnectionAbortedError):
                await open_connection(
                    *address,
                    header=HEADER,
                    ssl=tls_contexts[1],
                    ssl_handshake_timeout=0.05,
                )
            assert (await asyncio.wrap_future(received)).startswith(HEADER.raw + b"\x16\x03")

    async def test_a_peer_that_closes_in_the_handshake(self, tls_contexts: Contexts) -> None:
        def serve(conn: socket.socket) -> None:
            receive_exactly(conn, len(HEADER.raw) + 1)

        with serve_one(serve) as (address, _), pytest.raises(OSError):
            await open_connection(*address, header=HEADER, ssl=tls_contexts[1])

    async def test_a_peer_that_resets_at_once(self, tls_contexts: Contexts) -> None:
        def serve(conn: socket.socket) -> None:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with serve_one(serve) as (address, _), pytest.raises(OSError):
            await open_connection(*address, header=HEADER, ssl=tls_contexts[1])

    async def test_cancellation_in_the_handshake(self, tls_contexts: Contexts) -> None:
        in_handshake = threading.Event()

        def serve(conn: socket.socket) -> bytes:
            receive_exactly(conn, len(HEADER.raw) + 1)
            in_handshake.set()
            return receive_all(conn)[-1:]

        with serve_one(serve) as (address, received):
            connecting = asyncio.ensure_future(open_connection(*address, header=HEADER, ssl=tls_contexts[1]))
            await asyncio.to_thread(in_handshake.wait)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await asyncio.wrap_future(received)  # the server has seen the end


@pytest.fixture
def unix_server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        yield server


class TestOpenUnixConnection:
    @pytest.mark.parametrize("header", [HEADER, LONG_HEADER], ids=["short", "long"])
    @pytest.mark.parametrize("kind", ["str", "Path"])
    async def test_header_comes_first(
        self, unix_server: socket.socket, tmp_path: Path, kind: str, header: Header
    ) -> None:
        path = tmp_path / "socket" if kind == "Path" else unix_server.getsockname()
        with serve_one_of(unix_server, lambda conn: echo(conn, header)) as received:
            reader, writer = await open_unix_connection(path, header=header)
            writer.write(b"data")
            writer.write_eof()
            assert await reader.read() == b"data"
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(received) == header.raw

    async def test_header_comes_before_the_handshake(
        self, unix_server: socket.socket, tls_contexts: Contexts
    ) -> None:
        server_context, client_context = tls_contexts
        with serve_one_of(unix_server, handshake_with(server_context)) as result:
            _, writer = await open_unix_connection(
                unix_server.getsockname(), header=HEADER, ssl=client_context, server_hostname="localhost"
            )
            assert writer.get_extra_info("peercert")
            writer.close()
            await writer.wait_closed()
            assert await asyncio.wrap_future(result) == "done"

    async def test_a_certificate_of_another_name(
        self, unix_server: socket.socket, tls_contexts: Contexts
    ) -> None:
        server_context, client_context = tls_contexts
        with serve_one_of(unix_server, handshake_with(server_context)) as result:
            with pytest.raises(ssl.SSLCertVerificationError):
                await open_unix_connection(
                    unix_server.getsockname(),
                    header=HEADER,
                    ssl=client_context,
                    server_hostname="other.example",
                )
            assert await asyncio.wrap_future(result) == "failed"

    async def test_tls_needs_a_name(self, unix_server: socket.socket, tls_contexts: Contexts) -> None:
        with pytest.raises(
            ValueError, match=r"^server_hostname must be given when ssl is used without a host$"
        ):
            await open_unix_connection(unix_server.getsockname(), header=HEADER, ssl=tls_contexts[1])

    async def test_a_listener_believes_it(self, tmp_path: Path) -> None:
        path = str(tmp_path / "listener")
        with Listener.unix(path) as listener:
            reader, writer = await open_unix_connection(path, header=HEADER, limit=1024)
            with await anext(listener) as conn:
                assert conn.header == HEADER
                assert conn.getpeername() == HEADER.source
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    async def test_nobody_listens(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            await open_unix_connection(str(tmp_path / "none"), header=HEADER)

    @pytest.mark.parametrize("header", [None, HEADER.raw], ids=["None", "bytes"])
    async def test_header_of_another_type(self, header: Any, unix_server: socket.socket) -> None:
        unix_server.setblocking(False)
        with pytest.raises(TypeError, match=f"^header must be a Header, not {type(header).__name__}$"):
            await open_unix_connection(unix_server.getsockname(), header=header)
        with pytest.raises(BlockingIOError):
            unix_server.accept()

    def test_takes_what_the_function_of_asyncio_takes(self) -> None:
        assert positional(open_unix_connection) == positional(asyncio.open_unix_connection)


def handshake_with(context: ssl.SSLContext) -> Callable[[socket.socket], str]:
    """Read the header and do the handshake. Return its result."""

    def serve(conn: socket.socket) -> str:
        receive_exactly(conn, len(HEADER.raw))
        try:
            with context.wrap_socket(conn, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            return "failed"
        return "done"

    return serve


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def positional(function: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
