"""HAProxy in front of a Listener, with the configurations of docs/howto/haproxy.md.

The Listener sees the clients, and what HAProxy knows of them.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from interop import certificates
from interop.clients import SERVER_NAME
from interop.pages import example, run_example
from interop.proxies import running_haproxy
from interop.running import running_loop
from proxyproto_rs import Command, Header, Listener, ProxiedSocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interop.certificates import Certificates

PAGE = "howto/haproxy.md"
ASYNCIO = "howto/asyncio.md"


@contextlib.contextmanager
def haproxy(
    name: str, listener: Listener, directory: Path, replacements: dict[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run an example of the page in front of `listener`. Yields the address of its frontend."""
    host, port = listener.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as front:
        changes = {"10.0.0.20:8000": f"{host}:{port}", **(replacements or {})}
        bind = ":8883" if "bind :8883" in example(PAGE, name) else ":8000\n"
        changes[f"bind {bind}"] = f"bind fd@{front.fileno()}" + ("\n" if bind.endswith("\n") else "")
        with running_haproxy(example(PAGE, name, changes), directory, front):
            yield front.getsockname()


def connect(front: tuple[str, int]) -> socket.socket:
    # HAProxy connects from 127.0.0.1. With another address the test can tell the two apart.
    return socket.create_connection(front, 10, source_address=("127.0.0.2", 0))


def accept_client(listener: Listener, client: socket.socket) -> ProxiedSocket:
    """Accept connections until this client's comes. The others are health checks, and are closed."""
    listener.settimeout(10)
    while True:
        conn, address = listener.accept()
        if address == client.getsockname():
            return conn
        conn.close()


@pytest.mark.parametrize(("name", "version"), [("send-proxy", 1), ("send-proxy-v2", 2)])
def test_client_is_seen(name: str, version: int, listener: Listener, tmp_path: Path) -> None:
    with (
        haproxy(name, listener, tmp_path) as front,
        connect(front) as client,
        accept_client(listener, client) as conn,
    ):
        assert conn.header is not None
        assert conn.header.version == version
        assert conn.getsockname() == client.getpeername()
        assert conn.proxy_peername[0] == "127.0.0.1"
        client.sendall(b"there")
        assert conn.recv(5) == b"there"
        conn.sendall(b"and back")
        assert client.recv(8) == b"and back"


def header_behind_tls(
    listener: Listener, directory: Path, certs: Certificates, *, with_certificate: bool, **changes: str
) -> Header:
    files = {"/etc/haproxy/site.pem": str(certs.server), "/etc/haproxy/clients.pem": str(certs.authority)}
    context = certs.client_context(with_certificate=with_certificate)
    with (
        haproxy("tls-at-haproxy", listener, directory, {**files, **changes}) as front,
        connect(front) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as client,
        accept_client(listener, client) as conn,
    ):
        client.sendall(b"hello")
        assert conn.recv(5) == b"hello"
        assert conn.header is not None
        return conn.header


def test_common_name_is_in_the_header_where_tls_ends_at_haproxy(
    listener: Listener, certs: Certificates, tmp_path: Path
) -> None:
    header = header_behind_tls(listener, tmp_path, certs, with_certificate=True)
    assert header.ssl is not None
    assert header.ssl.cn == certificates.CLIENT_NAME
    assert header.ssl.verified
    assert header.ssl.version == "TLSv1.3"
    assert header.authority == SERVER_NAME
    assert len(header.unique_id or b"") == len("9e0b8b3a-8a3c-4d4f-9f0e-1a2b3c4d5e6f")


def test_client_without_a_certificate_is_not_verified(
    listener: Listener, certs: Certificates, tmp_path: Path
) -> None:
    header = header_behind_tls(listener, tmp_path, certs, with_certificate=False)
    assert header.ssl is not None
    assert (header.ssl.client_tls, header.ssl.cn, header.ssl.verified) == (True, None, False)


def test_a_common_name_of_a_stranger_is_not_verified(
    listener: Listener, certs: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    strangers = certificates.make(tmp_path / "strangers")
    lenient = {"verify optional": "verify optional ca-ignore-err all crt-ignore-err all"}
    mixed = certificates.Certificates(certs.authority, certs.server, strangers.client)
    header = header_behind_tls(listener, tmp_path, mixed, with_certificate=True, **lenient)
    assert header.ssl is not None
    assert (header.ssl.cn, header.ssl.verified) == (certificates.CLIENT_NAME, False)


def test_client_without_a_certificate_is_refused_where_one_is_required(
    listener: Listener, certs: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(require_client_cert=True, health_checks="close")
    listener.settimeout(10)
    files = {"/etc/haproxy/site.pem": str(certs.server), "/etc/haproxy/clients.pem": str(certs.authority)}
    with (
        haproxy("tls-at-haproxy", listener, tmp_path, files) as front,
        connect(front) as plain,
        certs.client_context().wrap_socket(plain, server_hostname=SERVER_NAME) as client,
    ):
        assert client.recv(1) == b""
        # accept() logs the refusal before it returns the next client.
        with (
            connect(front) as other,
            certs.client_context(with_certificate=True).wrap_socket(
                other, server_hostname=SERVER_NAME
            ) as verified,
            accept_client(listener, verified),
        ):
            pass
    assert listener.stats()["cert-required"] == 1
    assert '"send-proxy-v2-ssl-cn"' in caplog.text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls_that_haproxy_passes_through_ends_here(
    loop: str, listener: Listener, certs: Certificates, tmp_path: Path
) -> None:
    main = run_example(ASYNCIO, "asyncio-streams")["main"]
    with (
        running_loop(main, loop, listener, {"ssl": certs.server_context()}),
        haproxy("tls-through", listener, tmp_path) as front,
        connect(front) as plain,
        certs.client_context().wrap_socket(plain, server_hostname=SERVER_NAME) as client,
    ):
        client.sendall(b"hello\n")
        assert client.recv(100) == b"127.0.0.2 None\n"


def test_client_is_seen_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    namespace: dict[str, Any] = {"Listener": Listener}
    exec(example(PAGE, "unix-listener", {"/run/app.sock": path}), namespace)
    changes = {"/run/app.sock": path}
    with (
        namespace["listener"] as listener,
        socket.create_server(("127.0.0.1", 0)) as front,
        running_haproxy(
            example(PAGE, "unix-server", {**changes, "bind :8000": f"bind fd@{front.fileno()}"}),
            tmp_path,
            front,
        ),
        connect(front.getsockname()) as client,
        accept_client(listener, client) as conn,
    ):
        assert conn.getpeername() == client.getsockname()
        assert conn.getsockname() == client.getpeername()


@pytest.mark.parametrize(
    ("sent_with", "outcome"), [("send-proxy-v2", "local"), ("send-proxy", "unknown")], ids=["v2", "v1"]
)
def test_client_of_a_unix_frontend_has_no_address(
    sent_with: str, outcome: str, listener: Listener, tmp_path: Path
) -> None:
    host, port = listener.getsockname()
    path = str(tmp_path / "front.sock")
    changes = {
        "10.0.0.20:8000": f"{host}:{port}",
        "unix@/run/front.sock": "fd@{fd}",
        "send-proxy-v2": sent_with,
    }
    listener.settimeout(10)
    with socket.socket(socket.AF_UNIX) as front, socket.socket(socket.AF_UNIX) as client:
        front.bind(path)
        front.listen()
        configuration = example(PAGE, "unix-frontend", changes).format(fd=front.fileno())
        with running_haproxy(configuration, tmp_path, front):
            client.connect(path)
            client.sendall(b"hello")
            conn, address = listener.accept()
            with conn:
                assert conn.recv(5) == b"hello"
                assert conn.header is not None
                assert conn.header.source is None
                assert (conn.header.command is Command.LOCAL) == (outcome == "local")
                assert address == conn.proxy_peername
    assert listener.stats()[outcome] == 1
