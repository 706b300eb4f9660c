"""The HTTP server of `proxyproto_rs.tornado`: requests tell the client, also where Tornado cannot know it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

import pytest
from tornado.web import Application, RequestHandler

from integrations.asking import WITH_TLS, connection
from peers import LOCAL, V1, V2, make_contexts
from proxyproto_rs import Header, Listener, get_header
from proxyproto_rs.tornado import HTTPServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "proxyproto_rs.uvloop"])


class Who(RequestHandler):
    def get(self) -> None:
        header = get_header(self)
        self.write(f"{self.request.remote_ip} {self.request.protocol} {header and header.authority}")


@contextlib.asynccontextmanager
async def serving(listener: Listener, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    server = HTTPServer(Application([("/", Who)]), ssl_options=tls)
    server.add_socket(listener)
    try:
        yield
    finally:
        server.stop()
        await server.close_all_connections()


def ask_twice(listener: Listener, header: bytes = WITH_TLS.raw, tls: ssl.SSLContext | None = None) -> str:
    with connection(listener, header, tls) as proxied:
        first = proxied.get()
        assert proxied.get() == first
        return first


@both_loops
async def test_a_request_tells_what_the_header_says(listener: Listener) -> None:
    """The Listener blocks, as it does by default. Tornado's own server would wait for it."""
    async with serving(listener):
        assert await asyncio.to_thread(ask_twice, listener) == "192.0.2.1 https shop.example"


@both_loops
async def test_a_unix_listener_hides_nobody(tmp_path: Path) -> None:
    """Fails with Tornado's own server, which says 0.0.0.0."""
    with Listener.unix(tmp_path / "socket") as listener:
        async with serving(listener):
            assert await asyncio.to_thread(ask_twice, listener) == "192.0.2.1 https shop.example"


@both_loops
async def test_tls_begins_behind_the_header(listener: Listener, tmp_path: Path) -> None:
    server, client = make_contexts(tmp_path)
    async with serving(listener, server):
        assert await asyncio.to_thread(ask_twice, listener, V2, client) == "192.0.2.1 https None"


HEADERS = {
    "v1": (V1, "192.0.2.1"),
    "v2": (V2, "192.0.2.1"),
    "ipv6": (Header.v2(("2001:db8::1", 51724, 0, 0), ("2001:db8::2", 443, 0, 0)).raw, "2001:db8::1"),
    "local": (LOCAL, "127.0.0.1"),
}


@both_loops
@pytest.mark.parametrize(("header", "client"), HEADERS.values(), ids=list(HEADERS))
async def test_every_kind_of_header(header: bytes, client: str, listener: Listener) -> None:
    async with serving(listener):
        assert await asyncio.to_thread(ask_twice, listener, header) == f"{client} http None"


@both_loops
async def test_a_connection_without_a_header_is_tornados_own(listener: Listener) -> None:
    listener.update(trusted=["192.0.2.0/24"], untrusted="direct")
    async with serving(listener):
        assert await asyncio.to_thread(ask_twice, listener, b"") == "127.0.0.1 http None"


def test_without_tornado_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tornado.httpserver", None)
    monkeypatch.delitem(sys.modules, "proxyproto_rs.tornado")
    with pytest.raises(ImportError, match=r"^proxyproto_rs\.tornado needs tornado: pip install tornado$"):
        importlib.import_module("proxyproto_rs.tornado")
