"""Connecting with a header: what the functions of these names in `socket` and `asyncio` do, with the header first.

One write sends the header, before anything else and before TLS (S1).
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl as tls
from typing import TYPE_CHECKING, Any

from ._core import Header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["create_connection", "open_connection", "open_unix_connection"]

# Those keywords of asyncio.open_connection that concern TLS alone: the handshake takes them, after the header.
_HANDSHAKE_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")

_DEFAULT_TIMEOUT: Any = object()


def create_connection(
    address: tuple[str | None, int],
    timeout: float | None = _DEFAULT_TIMEOUT,
    source_address: tuple[bytearray | bytes | str, int] | None = None,
    *,
    header: Header,
    **options: Any,
) -> socket.socket:
    """Do what `socket.create_connection` does, and send the header. For TLS, wrap the result.

    Typical use::

        header = Header.v2(("192.0.2.1", 51000), ("198.51.100.1", 443))
        with create_connection(("127.0.0.1", 8000), header=header) as sock:
            sock.sendall(b"hello")

    Args:
        address: As in `socket.create_connection`.
        timeout: As in `socket.create_connection`, in seconds; it holds for the sending of the header too.
        source_address: As in `socket.create_connection`.
        header: What the receiver shall believe of this connection.
        options: ``all_errors``, from Python 3.11 on.

    Raises:
        TypeError: `header` is not a Header.
        OSError: The connection or the sending failed. The socket is closed.
    """
    _check_header(header)
    if timeout is not _DEFAULT_TIMEOUT:
        options["timeout"] = timeout
    sock = socket.create_connection(address, source_address=source_address, **options)
    try:
        sock.sendall(header.encode())
    except BaseException:
        sock.close()
        raise
    return sock


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    header: Header,
    limit: int = 2**16,
    ssl: tls.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Any,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do what `asyncio.open_connection` does, and send the header first, before TLS.

    Typical use::

        header = Header.v2(("192.0.2.1", 51000), ("198.51.100.1", 443))
        reader, writer = await open_connection("127.0.0.1", 8000, header=header)

    Args:
        host: As in `asyncio.open_connection`.
        port: As in `asyncio.open_connection`.
        header: What the receiver shall believe of this connection.
        limit: The buffer of the reader, in bytes, as in `asyncio.open_connection`.
        ssl: As in `asyncio.open_connection`.
        server_hostname: The name the certificate must have; with `ssl`, `host` unless given.
        options: The other keywords of `asyncio.open_connection`.

    Raises:
        TypeError: `header` is not a Header.
        ValueError: `server_hostname` does not go with `ssl` and `host`.
        OSError: The connection or the handshake failed. The connection is closed, as it is by cancellation.
    """
    if ssl and server_hostname is None:
        server_hostname = host or None
    connect = functools.partial(asyncio.get_running_loop().create_connection, host=host, port=port)
    return await _open(connect, header, limit, ssl, server_hostname, options)


async def open_unix_connection(
    path: str | os.PathLike[str] | None = None,
    *,
    header: Header,
    limit: int = 2**16,
    ssl: tls.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Any,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do what `asyncio.open_unix_connection` does, and send the header first, before TLS.

    Typical use::

        header = Header.v2(("192.0.2.1", 51000), ("198.51.100.1", 443))
        reader, writer = await open_unix_connection("/run/app.sock", header=header)

    Args:
        path: As in `asyncio.open_unix_connection`.
        header: What the receiver shall believe of this connection.
        limit: The buffer of the reader, in bytes, as in `asyncio.open_unix_connection`.
        ssl: As in `asyncio.open_unix_connection`.
        server_hostname: The name the certificate must have; `ssl` needs it.
        options: The other keywords of `asyncio.open_unix_connection`.

    Raises:
        TypeError: `header` is not a Header.
        ValueError: `server_hostname` does not go with `ssl`, or `path` with the options.
        OSError: The connection or the handshake failed. The connection is closed, as it is by cancellation.
    """
    path = None if path is None else os.fspath(path)
    connect = functools.partial(asyncio.get_running_loop().create_unix_connection, path=path)
    return await _open(connect, header, limit, ssl, server_hostname, options)


async def _open(
    connect: Callable[..., Awaitable[tuple[Any, asyncio.BaseProtocol]]],
    header: Header,
    limit: int,
    ssl: tls.SSLContext | bool | None,
    server_hostname: str | None,
    options: dict[str, Any],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make streams of what `connect` connects, a method of the loop, and send the header before anything else."""
    _check_header(header)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    if ssl:
        if server_hostname is None:
            raise ValueError("server_hostname must be given when ssl is used without a host")
        handshake = {name: options.pop(name) for name in _HANDSHAKE_OPTIONS if name in options}
        handshake["server_hostname"] = server_hostname
        context = ssl if isinstance(ssl, tls.SSLContext) else _default_context(server_hostname)
        plain, _ = await connect(asyncio.Protocol, **options)
        _send(plain, header)
        transport = await _start_tls(loop, plain, protocol, context, handshake)
    else:
        # asyncio has its own errors for TLS options without TLS.
        if server_hostname is not None:
            options["server_hostname"] = server_hostname
        transport, _ = await connect(lambda: protocol, ssl=ssl, **options)
        _send(transport, header)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _check_header(header: object) -> None:
    if not isinstance(header, Header):
        raise TypeError(f"header must be a Header, not {type(header).__name__}")


def _send(transport: asyncio.WriteTransport, header: Header) -> None:
    """Write the header. It comes first, because nobody else has the transport yet."""
    if not transport.is_closing():
        transport.write(header.encode())
    # The transport tells its protocol of a failed write. Our caller has no protocol that would hear it.
    if transport.is_closing():
        transport.abort()
        raise ConnectionResetError("the peer closed the connection before the PROXY header was sent")


def _default_context(server_hostname: str) -> tls.SSLContext:
    """Make what asyncio makes of ``ssl=True``."""
    context = tls.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


async def _start_tls(
    loop: asyncio.AbstractEventLoop,
    plain: asyncio.WriteTransport,
    protocol: asyncio.StreamReaderProtocol,
    context: tls.SSLContext,
    handshake: dict[str, Any],
) -> asyncio.WriteTransport:
    try:
        transport = await loop.start_tls(plain, protocol, context, **handshake)
    except BaseException:
        # start_tls closes gracefully, and so waits for a peer that may not read.
        plain.abort()
        raise
    if transport is None:
        raise ConnectionResetError("the peer closed the connection during the TLS handshake")
    # start_tls does not call this: it expects a protocol that has been connected before.
    protocol.connection_made(transport)
    return transport
