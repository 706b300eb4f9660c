"""nginx in front of a Listener, with the configurations of docs/howto/nginx.md."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from interop.clients import SERVER_NAME
from interop.pages import example
from interop.proxies import running_nginx
from proxyproto_rs import Family, Header, Listener, create_connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interop.certificates import Certificates

PAGE = "howto/nginx.md"


@contextlib.contextmanager
def nginx(
    name: str, listener: Listener, directory: Path, replacements: dict[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run an example of the page in front of `listener`. Yields the address on which nginx listens."""
    host, port = listener.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as front:
        address = f"127.0.0.1:{front.getsockname()[1]}"
        listen = "listen 8883" if "listen 8883" in example(PAGE, name) else "listen 8000"
        changes = {"10.0.0.20:8000": f"{host}:{port}", listen: f"listen {address}", **(replacements or {})}
        with running_nginx(example(PAGE, name, changes), directory, front):
            yield front.getsockname()


def test_client_is_seen(listener: Listener, tmp_path: Path) -> None:
    listener.settimeout(10)
    with (
        nginx("stream", listener, tmp_path) as front,
        socket.create_connection(front, 10, source_address=("127.0.0.2", 0)) as client,
    ):
        conn, address = listener.accept()
        with conn:
            assert address == conn.getpeername() == client.getsockname()
            assert conn.getsockname() == client.getpeername()
            assert conn.header is not None
            assert conn.header.version == 1
            client.sendall(b"there")
            assert conn.recv(5) == b"there"


def test_tls_that_ends_at_nginx_leaves_no_trace(
    listener: Listener, certs: Certificates, tmp_path: Path
) -> None:
    listener.settimeout(10)
    with (
        nginx("tls-at-nginx", listener, tmp_path, {"/etc/nginx/site.pem": str(certs.server)}) as front,
        socket.create_connection(front, 10) as plain,
        certs.client_context().wrap_socket(plain, server_hostname=SERVER_NAME) as client,
    ):
        client.sendall(b"there")
        conn, address = listener.accept()
        with conn:
            assert conn.recv(5) == b"there"
            assert address == client.getsockname()
            assert conn.header is not None
            assert conn.header.ssl is None


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "by-default"])
def test_nginx_mixes_families_behind_another_proxy(
    allowed: bool, listener: Listener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener.update(allow_mixed_families=allowed)
    listener.settimeout(10)
    outer = Header.v1(("2001:db8::1", 51000), ("2001:db8::2", 443))
    with (
        nginx("realip", listener, tmp_path, {"10.0.0.10": "127.0.0.1"}) as front,
        create_connection(front, 10, header=outer) as client,
    ):
        if allowed:
            conn, address = listener.accept()
            with conn:
                assert address[:2] == ("2001:db8::1", 51000)
                assert conn.header is not None
                assert conn.header.family is Family.INET6
        else:
            assert client.recv(1) == b""
            listener.close()
            assert listener.stats()["malformed"] == 1
            assert "an address is not of the announced family" in caplog.text


def test_client_of_a_unix_listener_has_no_address(listener: Listener, tmp_path: Path) -> None:
    listener.settimeout(10)
    host, port = listener.getsockname()
    path = str(tmp_path / "front.sock")
    with socket.socket(socket.AF_UNIX) as front, socket.socket(socket.AF_UNIX) as client:
        front.bind(path)
        front.listen()
        changes = {"listen 8000": f"listen unix:{path}", "10.0.0.20:8000": f"{host}:{port}"}
        with running_nginx(example(PAGE, "stream", changes), tmp_path, front):
            client.connect(path)
            conn, address = listener.accept()
            with conn:
                assert address == conn.proxy_peername
    assert listener.stats()["unknown"] == 1
