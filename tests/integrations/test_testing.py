"""The pytest plugin: in a user's conftest, and the clients and headers that it makes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from peers import turn_until
from proxyproto_rs import Header, Listener
from proxyproto_rs.testing import ProxiedClient, make_header

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

PLUGIN = 'pytest_plugins = ["proxyproto_rs.testing"]\n'


@pytest.fixture
def proxied_client() -> Iterator[ProxiedClient]:
    with ProxiedClient() as client:
        yield client


def run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(PLUGIN)
    pytester.makepyfile(test)
    # It needs a process of its own. Here the plugin's modules were imported before pytest could rewrite their asserts.
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:asyncio", *arguments)


def test_a_test_of_a_server(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest
        from proxyproto_rs import Listener

        @pytest.fixture
        def listener():
            with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener:
                yield listener

        def test_the_client_is_seen(listener, proxied_client):
            sock = proxied_client(listener, source=("203.0.113.9", 51724), tls={"client_name": "sensor-17"})
            sock.sendall(b"hello")
            conn, address = listener.accept()
            with conn:
                assert address == ("203.0.113.9", 51724)
                assert (conn.header.ssl.cn, conn.header.ssl.verified) == ("sensor-17", True)
                assert conn.recv(5) == b"hello"

        def test_sockets_that_nobody_closes_are_closed(listener, proxied_client):
            for _ in range(3):
                proxied_client(listener)
        """,
        "-Xdev" if False else "-v",
    )
    result.assert_outcomes(passed=2)


def test_the_fixture_is_listed_with_what_it_is(pytester: pytest.Pytester) -> None:
    result = run(pytester, "", "--fixtures")
    result.stdout.fnmatch_lines(["proxied_client*", "*Connect clients through a pretended proxy*"])


def test_without_the_plugin_there_is_no_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(proxied_client): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'proxied_client' not found*"])


FACTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"version": 2, "source": ("192.0.2.1", 51724), "destination": ("198.51.100.1", 443), "ssl": None}),
    ({"version": 1}, {"version": 1, "source": ("192.0.2.1", 51724)}),
    ({"authority": "shop.example", "alpn": b"h2"}, {"authority": "shop.example", "alpn": b"h2"}),
    ({"unique_id": b"1", "tlvs": [(0xE0, b"x")]}, {"unique_id": b"1", "tlvs": ((5, b"1"), (0xE0, b"x"))}),
    ({"source": "/a", "destination": "/b"}, {"source": "/a", "destination": "/b"}),
]


@pytest.mark.parametrize(("given", "said"), FACTS)
def test_a_header_says_what_it_is_told_to(given: dict[str, Any], said: dict[str, Any]) -> None:
    header = make_header(**given)
    assert {name: getattr(header, name) for name in said} == said


TLS_FACTS: list[tuple[Any, tuple[Any, ...]]] = [
    (True, ("TLSv1.3", None, None, False)),
    ({"version": "TLSv1.2", "cipher": "AES"}, ("TLSv1.2", "AES", None, False)),
    ({"client_name": "sensor-17"}, ("TLSv1.3", None, "sensor-17", True)),
    ({"client_name": "sensor-17", "verified": False}, ("TLSv1.3", None, "sensor-17", False)),
    ({"verified": True}, ("TLSv1.3", None, None, True)),
]


@pytest.mark.parametrize(("tls", "said"), TLS_FACTS)
def test_a_header_says_of_tls_what_it_is_told_to(tls: Any, said: tuple[Any, ...]) -> None:
    ssl = make_header(tls=tls).ssl
    assert ssl is not None
    assert ssl.client_tls
    assert (ssl.version, ssl.cipher, ssl.cn, ssl.verified) == said


def test_what_cannot_be_said_is_an_error() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        make_header(tls={"nonsense": 1})
    with pytest.raises(ValueError, match="version 1 has no TLVs"):
        make_header(version=1, tls=True)


def test_a_header_is_the_whole_of_it(listener: Listener, proxied_client: ProxiedClient) -> None:
    with pytest.raises(TypeError, match="header= is the whole header: give it or source, version, not both"):
        proxied_client(listener, header=Header.local(), source=("192.0.2.1", 1), version=1)
    proxied_client(listener, header=Header.local())
    conn, _ = listener.accept()
    with conn:
        assert conn.header == Header.local()


def test_it_reaches_every_kind_of_listener(proxied_client: ProxiedClient, tmp_path: Path) -> None:
    listeners = [
        Listener("", 0, trusted=["127.0.0.1", "::1"]),
        Listener("0.0.0.0", 0, trusted=["127.0.0.1"]),
        Listener.unix(tmp_path / "socket"),
    ]
    for listener in listeners:
        with listener:
            for address in (listener, listener.getsockname()):
                proxied_client(address)
                conn, client = listener.accept()
                conn.close()
                assert client == ("192.0.2.1", 51724)


def test_nobody_listens(proxied_client: ProxiedClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        proxied_client(str(tmp_path / "nobody"))


async def test_streams(listener: Listener, proxied_client: ProxiedClient) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4) + writer.get_extra_info("peername")[0].encode())
        writer.close()

    server = await listener.start_server(answer)
    async with server, proxied_client.streams(listener, source=("203.0.113.9", 1)) as (reader, writer):
        writer.write(b"I am")
        assert await reader.read() == b"I am203.0.113.9"


async def test_tls(
    listener: Listener, proxied_client: ProxiedClient, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_context, client_context = tls_contexts

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())
        writer.close()

    async with await listener.start_server(answer, ssl=server_context):
        async with proxied_client.streams(listener, ssl=client_context) as (reader, _writer):
            assert await reader.read() == b"192.0.2.1"
        sock = await asyncio.to_thread(proxied_client, listener, ssl=client_context)
        assert await asyncio.to_thread(sock.recv, 100) == b"192.0.2.1"
        sock.close()
        await turn_until(lambda: listener.stats().open == 0)
