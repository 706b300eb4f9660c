"""Listener: a listening socket whose accept() has already read the PROXY header."""

from __future__ import annotations

import errno
import os
import socket
import ssl as tls
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from . import _systemd
from ._annotations import Self, Unpack
from ._core import Acceptor
from ._listening_socket import ListeningSocket, StdlibSocket
from ._loops import serve
from ._loops.protocol import ClientConnected, ProtocolFactory
from ._loops.serve import STREAM_LIMIT
from ._loops.server import DRAIN_TIMEOUT, Tls
from ._loops.starting import StartingServer
from ._options import ListenerOptions, check_names
from ._proxied_socket import ProxiedSocket
from ._reports import ListenerStats, OnRefused

__all__ = ["Listener"]

_BACKLOG = 1024
_LARGEST_PORT = 65535


class Listener(ListeningSocket):
    """A listening socket. It hands over connections whose PROXY header has been read.

    Typical use::

        listener = Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"])
        async with listener.start_server(handle) as server:
            await server.serve_forever()

        with Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"]) as listener:  # without asyncio
            conn, address = listener.accept()

    Use it like any listening `socket.socket`: with threads, `selectors` and socketserver, and as the ``sock`` of
    `asyncio.start_server`, `loop.create_server` and the servers that call these. `create_server` and
    `start_server` are faster, and they work on uvloop, which accepts from the kernel if it is given a ``sock``.
    Elsewhere, wait until the Listener is readable and call `try_accept`.

    Args:
        host: An address, or a name; of a name it binds the first address. "" or None binds every address of both
            families. `proxyproto_rs.start_server` and `create_server` bind several.
        port: 0 lets the system choose; `getsockname` tells the port.
        backlog: How many connections may wait in the kernel, and how many may be ready to be accepted.
        ahead: How many connections the Listener takes from the kernel before you accept them. None is `backlog`,
            or 0 with `reuse_port`. With 0, `accept` takes each connection from the kernel. If several processes
            share a port, 0 is right: a connection that one of them has taken cannot be served by another.
        reuse_port: Let other sockets bind the same address. The kernel spreads the connections over them.
        dualstack: Whether an IPv6 socket serves IPv4 too. None does so if `host` is "" or None.
        on_refused: A function that is called with a `Refusal` for connections that were refused, in the thread that
            accepts.
        options: Those of `ListenerOptions`.

    Raises:
        TypeError: An option is unknown, or a value has a wrong type.
        ValueError: A value is not allowed. The text names the option and the value.
        OverflowError: `port` is not a port.
        OSError: The address cannot be resolved, bound or listened on.
    """

    _adopted: socket.socket | None = None

    def __init__(
        self,
        host: str | None,
        port: int,
        *,
        backlog: int = _BACKLOG,
        ahead: int | None = None,
        reuse_port: bool = False,
        dualstack: bool | None = None,
        on_refused: OnRefused | None = None,
        **options: Unpack[ListenerOptions],
    ) -> None:
        check_names(Listener.__init__, options)
        address, takes_both = _resolve(host, port, dualstack)
        try:
            acceptor = Acceptor.bind(
                address,
                backlog=backlog,
                reuse_port=reuse_port,
                dualstack=takes_both,
                ahead=ahead,
                options={**options},
            )
        except OSError as error:
            # The text of socket.create_server.
            text = f"{error.strerror} (while attempting to bind on address {address!r})"
            raise OSError(error.errno, text) from None
        self._begin(acceptor, on_refused)

    @classmethod
    def unix(
        cls,
        path: str | bytes | os.PathLike[str],
        *,
        mode: int | None = None,
        backlog: int = _BACKLOG,
        ahead: int | None = None,
        on_refused: OnRefused | None = None,
        **options: Unpack[ListenerOptions],
    ) -> Self:
        """Listen on a UNIX socket. All its peers are trusted.

        If nobody serves the file of an old socket, it is replaced. Closing the Listener removes the file.

        Typical use::

            listener = Listener.unix("/run/app.sock", mode=0o660)

        Args:
            path: The path of the socket. If it begins with a NUL, it is an abstract name.
            mode: The permissions of the file, such as 0o660; None leaves them to the umask.
            backlog: As for `Listener`, and so `ahead`, `on_refused` and `options`.
            ahead: How many connections the Listener takes before you accept them; None is `backlog`.
            on_refused: A function that is called with a `Refusal`.
            options: Those of `ListenerOptions`.

        Raises:
            OSError: The path cannot be bound. The errno is EADDRINUSE if somebody serves the path, or if it is not a
                socket.
        """
        check_names(Listener.unix, options)
        try:
            acceptor = Acceptor.bind_unix(
                os.fsencode(path), backlog=backlog, mode=mode, ahead=ahead, options={**options}
            )
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        return cls._of(acceptor, on_refused)

    @classmethod
    def adopt(
        cls,
        sock: socket.socket,
        *,
        backlog: int = _BACKLOG,
        ahead: int | None = None,
        on_refused: OnRefused | None = None,
        **options: Unpack[ListenerOptions],
    ) -> Self:
        """Take over a socket that listens already, such as one that was made before a fork.

        Typical use::

            sock = socket.create_server(("0.0.0.0", 8000))  # in the parent
            listener = Listener.adopt(sock, trusted=["10.0.0.0/8"])  # in each worker

        Args:
            sock: The Listener owns it from now on, and closes it. Its options stay, but it becomes non-blocking.
            backlog: How many connections may be ready to be accepted.
            ahead: How many connections the Listener takes from the kernel before you accept them. None is 0, so that
                a process takes only what it serves, and leaves the rest to the others that share the socket.
            on_refused: A function that is called with a `Refusal`.
            options: Those of `ListenerOptions`.

        Raises:
            TypeError: `sock` is not a socket, or it is a Listener.
            OSError: The socket does not listen, or is not a stream socket. Then it still belongs to the caller.
        """
        check_names(Listener.adopt, options)
        if not isinstance(sock, (socket.socket, StdlibSocket)) or isinstance(sock, Listener):
            raise TypeError(f"adopt() wants a plain listening socket, not {type(sock).__name__}")
        acceptor = Acceptor.adopt(sock.fileno(), backlog=backlog, ahead=ahead, options={**options})
        listener = cls._of(acceptor, on_refused)
        listener._adopted = sock
        return listener

    @classmethod
    def from_systemd(
        cls,
        name: str | None = None,
        *,
        backlog: int = _BACKLOG,
        ahead: int | None = None,
        on_refused: OnRefused | None = None,
        **options: Unpack[ListenerOptions],
    ) -> Self:
        """Serve a socket that systemd has passed to this service (sd_listen_fds(3)).

        Args:
            name: The FileDescriptorName of the socket. It is needed if systemd has passed several.
            backlog: How many connections may be ready to be accepted.
            ahead: As in `adopt`.
            on_refused: A function that is called with a `Refusal`.
            options: Those of `ListenerOptions`.

        Raises:
            RuntimeError: systemd has passed nothing to this process.
            ValueError: No socket has this name, or several have it.
            OSError: The socket does not listen, or is not a stream socket.
        """
        check_names(Listener.from_systemd, options)
        # Closing the Listener leaves this fd open, because another Listener may take it later.
        fd = _systemd.find_fd(name)
        os.set_inheritable(fd, False)
        return cls._of(Acceptor.adopt(fd, backlog=backlog, ahead=ahead, options={**options}), on_refused)

    @classmethod
    def _of(cls, acceptor: Acceptor, on_refused: OnRefused | None) -> Self:
        listener = cls.__new__(cls)
        listener._begin(acceptor, on_refused)
        return listener

    def close(self) -> None:
        """Close the socket, and the connections that nobody has accepted. Waiting threads and tasks get an OSError."""
        super().close()
        if self._adopted is not None:
            self._adopted.close()

    def update(self, **options: Unpack[ListenerOptions]) -> None:
        """Replace options, for the connections that come from now on. If one is wrong, none is replaced.

        Typical use::

            listener.update(deny=["192.0.2.0/24"], max_connections_per_client=20)

        Raises:
            TypeError: An option is unknown, or a value has a wrong type.
            ValueError: A value is not allowed.
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        check_names(Listener.update, options)
        self.listen()  # raises in a forked child, where an update would change nothing
        self._acceptor.update({**options})

    @property
    def options(self) -> Mapping[str, Any]:
        """A copy of the options in force."""
        return MappingProxyType(self._acceptor.options())

    def stats(self) -> ListenerStats:
        """Return how many connections met each outcome, also when the Listener is closed."""
        return ListenerStats(*self._acceptor.stats())

    def drain(self) -> None:
        """Take no more connections from the kernel. You can still accept those that the Listener has.

        After the last one `accept` raises OSError (EBADF), ``async for`` ends, and the servers of `create_server` and
        `start_server` close: `Server.serve_forever` waits for the clients and returns. A server that got the Listener as
        ``sock`` does not learn of it: asyncio's logs the error once, and you have to close it.
        """
        self._acceptor.drain()

    @property
    def on_refused(self) -> OnRefused | None:
        """The function that is called with a `Refusal`; you can replace it."""
        return self._refusals.on_refused

    @on_refused.setter
    def on_refused(self, callback: OnRefused | None) -> None:
        self._refusals.on_refused = callback

    @property
    def refusals_dropped(self) -> int:
        """How many refused connections ``on_refused`` was not told of, because too many came at once."""
        return self._refusals.dropped

    def create_server(
        self,
        protocol_factory: ProtocolFactory,
        *,
        ssl: tls.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        drain_timeout: float | None = DRAIN_TIMEOUT,
    ) -> StartingServer:
        """Serve on the running loop, asyncio's or uvloop, as `loop.create_server` does.

        Typical use::

            async with listener.create_server(Protocol) as server:
                await server.serve_forever()

        ``server = await listener.create_server(Protocol)`` works too.

        Transports know three more names in `get_extra_info`: "proxy_header", "proxy_peername" and "proxy_sockname".
        On uvloop they are wrapped: begin TLS with ``transport.start_tls(protocol, context, ...)`` there, or run
        `proxyproto_rs.uvloop.Loop`, whose `start_tls` takes them.

        Args:
            protocol_factory: As in `loop.create_server`.
            ssl: If given, the TLS handshake follows the header.
            ssl_handshake_timeout: Seconds for the handshake; None is 60.
            ssl_shutdown_timeout: Seconds for the closing handshake; None is 30. It needs Python 3.11, or uvloop.
            start_serving: False waits for `Server.start_serving`.
            drain_timeout: Seconds that `Server.serve_forever` waits for the clients after a drain; None waits for ever.

        Raises:
            OSError: The Listener is closed (EBADF).
            NotImplementedError: The loop cannot take over accepted connections, such as rloop.
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        coroutine = serve.create_server([self], protocol_factory, security, start_serving, drain_timeout)
        return StartingServer(coroutine, Listener.create_server)

    def start_server(
        self,
        client_connected_cb: ClientConnected,
        *,
        limit: int = STREAM_LIMIT,
        ssl: tls.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        drain_timeout: float | None = DRAIN_TIMEOUT,
    ) -> StartingServer:
        """Serve on the running loop, asyncio's or uvloop, as `asyncio.start_server` does.

        Typical use::

            async def handle(reader, writer):
                host, port = writer.get_extra_info("peername")[:2]  # the client's
                ...

            async with listener.start_server(handle) as server:
                await server.serve_forever()

        ``server = await listener.start_server(handle)`` works too.

        Writers know the same three names in `get_extra_info` as the transports of `create_server`. Their `start_tls`
        works on uvloop too.

        Args:
            client_connected_cb: As in `asyncio.start_server`.
            limit: The buffer of each reader, in bytes.
            ssl: If given, the TLS handshake follows the header.
            ssl_handshake_timeout: Seconds for the handshake; None is 60.
            ssl_shutdown_timeout: Seconds for the closing handshake; None is 30. It needs Python 3.11, or uvloop.
            start_serving: False waits for `Server.start_serving`.
            drain_timeout: Seconds that `Server.serve_forever` waits for the clients after a drain; None waits for ever.

        Raises:
            OSError: The Listener is closed (EBADF).
            NotImplementedError: The loop cannot take over accepted connections, such as rloop.
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        coroutine = serve.start_server(
            [self], client_connected_cb, limit, security, start_serving, drain_timeout
        )
        return StartingServer(coroutine, Listener.start_server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProxiedSocket:
        """Wait for a connection, which is non-blocking. It ends when the Listener is closed or drained.

        It runs on asyncio, uvloop and trio.
        """
        # Other tasks get their turn, however fast connections come. They get it before a connection is taken, so that
        # cancelling loses none.
        await serve.checkpoint()
        while True:
            try:
                sock = self._take_one()
                if sock is not None:
                    return sock
                await serve.wait_readable(self._wake_fd)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                raise StopAsyncIteration from None


def _resolve(host: str | None, port: int, dualstack: bool | None) -> tuple[Any, bool]:
    """Return the address to bind, and whether its socket serves both families."""
    if not (host is None or isinstance(host, str)):
        raise TypeError(
            f"host must be a str or None, not {type(host).__name__}: a Listener is one socket. "
            "proxyproto_rs.start_server() and create_server() serve several hosts"
        )
    if not isinstance(port, int):
        raise TypeError(f"port must be an int, not {type(port).__name__}")
    if not isinstance(dualstack, bool | None):
        raise TypeError(f"dualstack must be a bool or None, not {type(dualstack).__name__}")
    if not 0 <= port <= _LARGEST_PORT:
        raise OverflowError(f"port must be 0-{_LARGEST_PORT}, not {port}")
    if not host:
        if dualstack is not False and socket.has_dualstack_ipv6():
            return ("::", port, 0, 0), True
        return ("0.0.0.0", port), False  # noqa: S104 - no host means every address, as in asyncio
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if dualstack and family != socket.AF_INET6:
        raise ValueError(f"dualstack needs an IPv6 address, and {host!r} is {address[0]}")
    return address, bool(dualstack)
