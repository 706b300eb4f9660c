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
from ._loops.serve import STREAM_LIMIT, ClientConnected, ProtocolFactory
from ._loops.server import Tls
from ._loops.starting import StartingServer
from ._options import ListenerOptions, check_names
from ._proxied_socket import ProxiedSocket
from ._reports import ListenerStats, OnRefused

__all__ = ["Listener"]

_BACKLOG = 1024
_LARGEST_PORT = 65535


class Listener(ListeningSocket):
    """A listening socket that hands over connections whose PROXY header has been read.

    It is used like any listening `socket.socket`: with threads, `selectors` and socketserver, and as the
    ``sock`` of `asyncio.start_server`, `loop.create_server` and the servers built on them. On uvloop, which
    asks the kernel behind a socket's back, and where speed matters, use `create_server` and `start_server`.
    Elsewhere, wait until it is readable and `try_accept()`.

    Args:
        host: An address, or a name, of which the first address counts; "" or None for every address of both
            families. `start_server` and `create_server` of this package take several.
        port: 0 lets the system choose; `getsockname()` tells.
        backlog: How many connections may wait in the kernel, and how many may be ready to be accepted.
        ahead: How many connections are taken from the kernel before they are accepted; None: `backlog`, and 0
            with `reuse_port`. With 0, `accept` takes each from the kernel itself. What one process has taken
            and does not serve yet, no other process can serve, so 0 is right wherever several share a port.
        reuse_port: Let other sockets bind the same address; the kernel spreads connections over them.
        dualstack: Whether an IPv6 socket serves IPv4 too. None: where no host is given.
        on_refused: Called with a `Refusal` for connections that were refused, in the thread that accepts.
        options: See `ListenerOptions`.

    Raises:
        TypeError: An unknown option, or a value of a wrong type.
        ValueError: A value that is not allowed; the text names option and value.
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
            # As socket.create_server has it.
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
        """Listen on a UNIX socket, whose peers count as trusted.

        The file of a socket that nobody serves any more is replaced; closing the Listener removes the file.

        Args:
            path: Where; a leading NUL makes it an abstract name.
            mode: The permissions of the file; None for what the umask leaves.
            backlog: As for the class, like all that follow.
            on_refused: See there.
            options: See there.

        Raises:
            OSError: The path cannot be bound; EADDRINUSE if it is served, or is no socket.
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
        """Take over a socket that listens already, such as one that was made before forking.

        Args:
            sock: The Listener's from now on, which closes it. Its options stay, but it is made non-blocking.
            backlog: How many connections may be ready to be accepted.
            ahead: How many connections are taken from the kernel before they are accepted. None: 0, so that
                whoever shares the socket serves what this process has no time for.
            on_refused: As for the class, like `options`.
            options: See there.

        Raises:
            TypeError: `sock` is not a socket, or is a Listener.
            OSError: It does not listen, or is no stream socket. It stays the caller's.
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
            name: Its FileDescriptorName; needed if there are several.
            backlog: How many connections may be ready to be accepted.
            ahead: As in `adopt`.
            on_refused: As for the class, like `options`.
            options: See there.

        Raises:
            RuntimeError: systemd has passed nothing to this process.
            ValueError: There is no socket of this name, or several.
            OSError: It does not listen, or is no stream socket.
        """
        check_names(Listener.from_systemd, options)
        # It stays open, as systemd holds it open too: a Listener may come after this one.
        fd = _systemd.find_fd(name)
        os.set_inheritable(fd, False)
        return cls._of(Acceptor.adopt(fd, backlog=backlog, ahead=ahead, options={**options}), on_refused)

    @classmethod
    def _of(cls, acceptor: Acceptor, on_refused: OnRefused | None) -> Self:
        listener = cls.__new__(cls)
        listener._begin(acceptor, on_refused)
        return listener

    def close(self) -> None:
        """Close for good, and what was not accepted with it. Whoever waits for a connection learns of it."""
        super().close()
        if self._adopted is not None:
            self._adopted.close()

    def update(self, **options: Unpack[ListenerOptions]) -> None:
        """Replace options while it runs, for the connections that come from now on: all that are given, or
        none.

        Raises:
            TypeError: An unknown option, or a value of a wrong type.
            ValueError: A value that is not allowed.
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        check_names(Listener.update, options)
        self.listen()  # it would change nothing in a forked child
        self._acceptor.update({**options})

    @property
    def options(self) -> Mapping[str, Any]:
        """The options in force; a copy."""
        return MappingProxyType(self._acceptor.options())

    def stats(self) -> ListenerStats:
        """Return what became of its connections; also when it is closed."""
        return ListenerStats(*self._acceptor.stats())

    def drain(self) -> None:
        """Take no more connections from the kernel. Those it has can be accepted still; after the last it is
        as if closed.

        Then `accept` raises OSError (EBADF), ``async for`` ends, and the servers of `create_server` and
        `start_server` close, so that ``await server.wait_closed()`` tells. A server that was given the
        Listener as ``sock`` cannot know: asyncio's logs the error once, and is still to be closed.
        """
        self._acceptor.drain()

    @property
    def on_refused(self) -> OnRefused | None:
        """What is called with a `Refusal`; may be replaced."""
        return self._refusals.on_refused

    @on_refused.setter
    def on_refused(self, callback: OnRefused | None) -> None:
        self._refusals.on_refused = callback

    @property
    def refusals_dropped(self) -> int:
        """Of how many refused connections ``on_refused`` has not heard, because too many came at once."""
        return self._refusals.dropped

    def create_server(
        self,
        protocol_factory: ProtocolFactory,
        *,
        ssl: tls.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> StartingServer:
        """Serve on the running loop, as `loop.create_server` does, faster than with ``sock`` and on uvloop
        too.

        Typical use::

            async with listener.create_server(Protocol) as server:
                await server.serve_forever()

        ``server = await listener.create_server(Protocol)`` works too.

        Transports answer `get_extra_info` for "proxy_header", "proxy_peername" and "proxy_sockname" too. On
        uvloop they are wrapped: `loop.start_tls` takes ``transport.get_extra_info("wrapped_transport")``
        there.

        Args:
            protocol_factory: As in `loop.create_server`, like all that follow.
            ssl: TLS is negotiated behind the header.
            ssl_handshake_timeout: In seconds; the loop's own, 60, if None.
            ssl_shutdown_timeout: In seconds; the loop's own, 30, if None. asyncio has it from Python 3.11 on.
            start_serving: False waits for `Server.start_serving`.

        Raises:
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        coroutine = serve.create_server([self], protocol_factory, security, start_serving)
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
    ) -> StartingServer:
        """Serve on the running loop, as `asyncio.start_server` does, faster than with ``sock`` and on uvloop
        too.

        Typical use::

            async def handle(reader, writer):
                host, port = writer.get_extra_info("peername")[:2]  # the client's
                ...

            async with listener.start_server(handle) as server:
                await server.serve_forever()

        ``server = await listener.start_server(handle)`` works too.

        Writers answer `get_extra_info` as the transports of `create_server` do. Their `start_tls` works on
        uvloop too.

        Args:
            client_connected_cb: As in `asyncio.start_server`.
            limit: The buffer of each reader, in bytes.
            ssl: As in `create_server`, like all that follow.
            ssl_handshake_timeout: See there.
            ssl_shutdown_timeout: See there.
            start_serving: See there.

        Raises:
            OSError: The Listener is closed (EBADF).
            RuntimeError: The Listener was made before a fork, in the parent.
        """
        security = Tls.of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        coroutine = serve.start_server([self], client_connected_cb, limit, security, start_serving)
        return StartingServer(coroutine, Listener.start_server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProxiedSocket:
        """Wait for a connection, which will be non-blocking; end when the Listener is closed or drained.

        On asyncio, uvloop and trio.
        """
        # However fast connections come, others get their turn; before one is taken, so that cancelling loses
        # none.
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
    """Return the address to bind, and whether it is to serve both families."""
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
        return ("0.0.0.0", port), False  # noqa: S104 - no host means all, as in asyncio
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if dualstack and family != socket.AF_INET6:
        raise ValueError(f"dualstack needs an IPv6 address, and {host!r} is {address[0]}")
    return address, bool(dualstack)
