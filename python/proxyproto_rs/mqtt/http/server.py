"""Serves the API on the broker's event loop, through a Listener of our own."""

from __future__ import annotations

import logging
import ssl
import weakref
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from proxyproto_rs import Listener

from ..config import ConfigError, Problem
from ..front.tls import load_certificate, server_context
from .application import application
from .guard import Guard
from .tokens import check_tokens, load_tokens

if TYPE_CHECKING:
    from proxyproto_rs import Server

    from ..config import BrokerConfig, HttpConfig, TlsConfig
    from .broker import Broker
    from .tokens import Tokens

_CONNECTIONS = 2000
"""Those who listen to events are up to 1000 of them."""
_IDLE = 30.0  # seconds that a connection may be without a whole request
_END = 2.0  # seconds for the requests under way

_logger = logging.getLogger("proxyproto_rs.mqtt")


class HttpServer:
    """The API of one broker. It has the section `http`."""

    def __init__(self, broker: Broker, config: BrokerConfig) -> None:
        """Read the tokens and the certificate. Raises ConfigError."""
        http = config.http
        self._tls = None if http.tls is None else _context(http.tls)
        self._tokens = load_tokens(http, config)
        # Weak, because aiohttp keeps its last applications in a cache, and with them all that their handlers name.
        self._broker = cast("Broker", weakref.proxy(broker))
        self._guard = Guard(http, self._tokens, self._broker)
        self._runner: web.AppRunner | None = None
        self._server: Server | None = None
        self.listener: Listener | None = None

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        assert self.listener is not None
        host, port = self.listener.getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    async def start(self, config: BrokerConfig) -> None:
        """Serve. Raises OSError with a text that names the key."""
        http = config.http
        self._runner = web.AppRunner(
            application(self._broker, self._guard),
            handle_signals=False,
            access_log=None,
            keepalive_timeout=_IDLE,
            shutdown_timeout=_END,
        )
        await self._runner.setup()
        try:
            self.listener = Listener(http.bind.host or None, http.bind.port, **_options(http, config))
        except OSError as wrong:
            text = wrong.strerror or str(wrong)
            raise OSError(wrong.errno, f"http.bind: {http.bind}: {text}") from None
        assert self._runner.server is not None
        self._server = await self.listener.create_server(self._runner.server, ssl=self._tls)
        _logger.info("http url=%s", self.url)

    def prepare(self, config: BrokerConfig) -> tuple[HttpConfig, Tokens]:
        """Read the tokens and the certificate of a new configuration, and change nothing. Raises ConfigError."""
        http = config.http
        if http.tls is not None:
            _context(http.tls)
        return http, load_tokens(http, config)

    def change(self, prepared: tuple[HttpConfig, Tokens]) -> None:
        """Put what `prepare` has read in force. New connections get the new certificate."""
        self._guard.http, self._guard.tokens = prepared
        tls = prepared[0].tls
        if tls is not None and self._tls is not None:
            load_certificate(self._tls, tls)

    async def close(self) -> None:
        """Stop listening, and end every request. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        elif self.listener is not None:
            self.listener.close()
        self._broker.feed.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if server is not None:
            server.abort_clients()
            await server.wait_closed()


def check(http: HttpConfig) -> None:
    """Check the certificate and the token's file, and make nothing. Raises ConfigError."""
    if http.tls is not None:
        _context(http.tls)
    check_tokens(http)


def _options(http: HttpConfig, config: BrokerConfig) -> dict[str, Any]:
    proxy = config.proxy
    options: dict[str, Any] = {"proxy_protocol": http.proxy_protocol, "max_connections": _CONNECTIONS}
    if http.proxy_protocol != "off":
        trusted = None if proxy.trusted is None else [str(network) for network in proxy.trusted]
        options |= {
            "trusted": trusted,
            "untrusted": proxy.untrusted,
            "versions": proxy.versions,
            "header_timeout": proxy.header_timeout,
        }
    return options


def _context(tls: TlsConfig) -> ssl.SSLContext:
    try:
        context = server_context(tls.model_copy(update={"alpn": ("http/1.1",)}))
    except ValueError as wrong:
        key, _, text = str(wrong).partition(": ")
        raise ConfigError([Problem("", ("http", "tls", key), text)]) from None
    return context
