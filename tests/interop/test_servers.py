"""Every server of docs/howto serves a client behind a proxy. The code is that of the page.

The server answers with the client's address and with something else from the header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from interop.clients import ANSWER, ask_in_http, ask_in_lines, ask_in_websocket
from interop.pages import run_example
from interop.running import Loop, running
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interop.certificates import Certificates


class Server(NamedTuple):
    """An example, on a loop, and how to talk to it."""

    page: str
    examples: str
    """The blocks it is made of. The last one gives it its name."""
    loop: Loop
    ask: Callable[..., str]
    tls: str | None
    """How it gets a certificate: a key of `TLS`, or None if it cannot have one."""

    @property
    def name(self) -> str:
        return self.examples.rpartition(" ")[2]


TLS: dict[str, Callable[[Certificates], dict[str, Any]]] = {
    "context": lambda certs: {"ssl": certs.server_context()},
    "files": lambda certs: {"certfile": str(certs.server), "keyfile": str(certs.server)},
    "ssl-files": lambda certs: {"ssl_certfile": certs.server, "ssl_keyfile": certs.server},
}

ASYNCIO, WEB, STDLIB, TRIO = "howto/asyncio.md", "howto/web.md", "howto/stdlib.md", "howto/trio.md"

OUR_UVLOOP = "proxyproto_rs.uvloop"

SERVERS = [
    Server(ASYNCIO, "asyncio-streams", "asyncio", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-streams", "uvloop", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-protocols", "asyncio", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-protocols", "uvloop", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-sock", "asyncio", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-sock", OUR_UVLOOP, ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-protocols-sock", "asyncio", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-protocols-sock", OUR_UVLOOP, ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-accept", "asyncio", ask_in_lines, "context"),
    Server(ASYNCIO, "asyncio-accept", "uvloop", ask_in_lines, "context"),
    *[Server(WEB, "uvicorn", loop, ask_in_http, "ssl-files") for loop in ("asyncio", "uvloop", OUR_UVLOOP)],
    *[Server(WEB, "hypercorn", loop, ask_in_http, "files") for loop in ("asyncio", OUR_UVLOOP)],
    *[Server(WEB, "aiohttp", loop, ask_in_http, "context") for loop in ("asyncio", OUR_UVLOOP)],
    *[
        Server(WEB, "aiohttp-uvloop", loop, ask_in_http, "context")
        for loop in ("asyncio", "uvloop", OUR_UVLOOP)
    ],
    *[Server(WEB, "tornado", loop, ask_in_http, "context") for loop in ("asyncio", "uvloop", OUR_UVLOOP)],
    *[Server(WEB, "websockets", loop, ask_in_websocket, "context") for loop in ("asyncio", OUR_UVLOOP)],
    Server(WEB, "websockets-threads", "threads", ask_in_websocket, "context"),
    Server(STDLIB, "threads threads-tls", "threads", ask_in_lines, "context"),
    Server(STDLIB, "socketserver", "threads", ask_in_lines, "context"),
    Server(STDLIB, "http-server", "threads", ask_in_http, "context"),
    Server(STDLIB, "wsgiref", "threads", ask_in_http, "context"),
    Server(TRIO, "trio", "trio", ask_in_lines, "context"),
    Server(TRIO, "anyio", "asyncio", ask_in_lines, "context"),
    Server(TRIO, "anyio", "uvloop", ask_in_lines, "context"),
    Server(TRIO, "anyio", "trio", ask_in_lines, "context"),
]


def name_of(server: Server) -> str:
    return f"{server.name}-{server.loop}"


@pytest.mark.parametrize("server", SERVERS, ids=name_of)
def test_client_is_seen(server: Server, listener: Listener) -> None:
    namespace = run_example(server.page, *server.examples.split())
    with running(namespace, server.loop, listener, {}):
        answer = server.ask(listener.getsockname(), None)
    assert answer == ANSWER
    assert (listener.stats()["v2"], listener.stats().refused) == (1, 0)


@pytest.mark.parametrize("server", [server for server in SERVERS if server.tls], ids=name_of)
def test_client_is_seen_with_tls_behind_the_header(
    server: Server, listener: Listener, certs: Certificates
) -> None:
    namespace = run_example(server.page, *server.examples.split())
    with running(namespace, server.loop, listener, TLS[server.tls or ""](certs)):
        answer = server.ask(listener.getsockname(), certs.client_context())
    assert answer == ANSWER


# Some of these ask a connection for its family, and take every client of a UNIX socket for one without an address.
@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "aiohttp", "tornado"])
def test_client_is_seen_on_a_unix_listener(name: str, tmp_path: Path) -> None:
    server = next(server for server in SERVERS if server.name == name)
    with (
        Listener.unix(tmp_path / "socket") as listener,
        running(run_example(server.page, name), server.loop, listener, {}),
    ):
        assert server.ask(listener.getsockname(), None) == ANSWER
