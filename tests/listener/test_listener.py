"""Making a Listener: addresses, names, UNIX sockets, adopted ones, and arguments that are wrong."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from peers import CLIENT, V2, Peer
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["", None])
def test_no_host_is_every_address_of_both_families(host: str | None) -> None:
    with Listener(host, 0, trusted=["127.0.0.1", "::1"]) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with Peer((address, port), V2):
                sock, client = listener.accept()
                sock.close()
                assert client == CLIENT


def test_an_ipv6_address_is_of_one_family_unless_told() -> None:
    with Listener("::1", 0, trusted=["::1"]) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    with Listener("::", 0, dualstack=True, trusted=["::1"]) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    with Listener("", 0, dualstack=False, trusted=["::1"]) as listener:
        assert listener.family == socket.AF_INET
    with pytest.raises(ValueError, match="dualstack"):
        Listener("127.0.0.1", 0, dualstack=True)


def test_a_host_name_is_resolved() -> None:
    with Listener("localhost", 0, trusted=["127.0.0.1", "::1"]) as listener, Peer(listener.getsockname(), V2):
        sock, _ = listener.accept()
        sock.close()


def test_ports_are_shared_when_told() -> None:
    with Listener("127.0.0.1", 0, reuse_port=True, trusted=["127.0.0.1"]) as first:
        port = first.getsockname()[1]
        with Listener("127.0.0.1", port, reuse_port=True, trusted=["127.0.0.1"]) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match=str(port)) as caught:
            Listener("127.0.0.1", port, trusted=["127.0.0.1"])
        assert caught.value.errno == errno.EADDRINUSE


BAD_ARGUMENTS: list[tuple[tuple[Any, Any], dict[str, Any], type[Exception], str]] = [
    (("127.0.0.1", "80"), {}, TypeError, "port"),
    (("127.0.0.1", 65536), {}, OverflowError, "65536"),
    (("127.0.0.1", -1), {}, OverflowError, "-1"),
    (("127.0.0.1", 0), {"proxy_protokol": "off"}, TypeError, "proxy_protokol"),
    (("127.0.0.1", 0), {"proxy_protocol": "on"}, ValueError, "proxy_protocol.*'on'"),
    (("127.0.0.1", 0), {"proxy_protocol": "optional"}, ValueError, "trusted"),
    (("127.0.0.1", 0), {"trusted": ["10.0.0.0/33"]}, ValueError, "10.0.0.0/33"),
    (("127.0.0.1", 0), {"trusted": "10.0.0.0/8"}, TypeError, "trusted"),
    (("127.0.0.1", 0), {"max_connections": 0}, ValueError, "max_connections"),
    (("127.0.0.1", 0), {"header_timeout": -1}, ValueError, "header_timeout.*-1"),
    (("127.0.0.1", 0), {"backlog": -1}, ValueError, "backlog must be from 0 to .*, not -1"),
    (("127.0.0.1", 0), {"backlog": "many"}, TypeError, "backlog must be int, not str"),
    (("127.0.0.1", 0), {"reuse_port": 1}, TypeError, "reuse_port must be bool, not int"),
    (("127.0.0.1", 0), {"dualstack": "yes"}, TypeError, "dualstack must be a bool or None, not str"),
    (("127.0.0.1", 0), {"on_refused": "log"}, TypeError, "on_refused must be callable or None, not str"),
]


@pytest.mark.parametrize(("address", "options", "error", "text"), BAD_ARGUMENTS, ids=str)
def test_a_bad_argument_is_named(
    address: tuple[Any, Any], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Listener(*address, **options)


def test_an_unresolvable_host_is_an_os_error() -> None:
    with pytest.raises(socket.gaierror):
        Listener("no such host", 0)


def test_a_unix_listener_believes_its_peers(tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    with Listener.unix(path, mode=0o600) as listener:
        assert listener.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with Peer(str(path), V2, b"payload"):
            sock, address = listener.accept()
            with sock:
                assert address == CLIENT
                assert sock.recv(100) == b"payload"
                assert (sock.family, sock.proxy_sockname) == (socket.AF_UNIX, str(path))
    assert not path.exists()


@pytest.mark.parametrize("mode", [-1, 0o10000, "rw"])
def test_a_bad_mode_is_named(tmp_path: Path, mode: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"mode must be .*, not {mode if mode != 'rw' else 'str'}"
    ):
        Listener.unix(tmp_path / "listener.sock", mode=mode)
    assert not list(tmp_path.iterdir())


def test_an_adopted_socket_belongs_to_the_listener() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with Listener.adopt(sock, trusted=["127.0.0.1"]) as listener:
        assert listener.getsockname() == sock.getsockname()
        with Peer(sock.getsockname(), V2):
            conn, address = listener.accept()
            conn.close()
            assert address == CLIENT
    assert sock.fileno() == -1


def deferral(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)


def test_the_kernel_waits_for_headers_that_everybody_must_send() -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener:
        assert deferral(listener) > 0
        for options in ({"proxy_protocol": "off"}, {"untrusted": "direct"}, {"defer_accept": False}):
            before = {name: listener.options[name] for name in options}
            listener.update(**options)
            assert deferral(listener) == 0, options
            listener.update(**before)
            assert deferral(listener) > 0, options


def test_an_adopted_socket_is_left_as_it_is_unless_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 7)
        before = deferral(sock)
        with Listener.adopt(sock, trusted=["127.0.0.1"]) as listener:
            listener.update(proxy_protocol="off")
            assert deferral(listener) == before
            listener.update(defer_accept=False)
            assert deferral(listener) == 0


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="a socket family of Linux")
def test_a_socket_whose_peers_nobody_knows_is_not_adopted() -> None:
    """Its peers would have no address that could be trusted or not."""
    try:
        sock = socket.socket(socket.AF_VSOCK)
    except OSError as error:
        pytest.skip(f"no AF_VSOCK here: {error}")
    with sock:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        sock.listen()
        with pytest.raises(OSError, match="an AF_VSOCK socket cannot be served") as caught:
            Listener.adopt(sock)
        assert caught.value.errno == errno.EAFNOSUPPORT
        # It is as it was: its owner goes on with it.
        assert os.get_blocking(sock.fileno())


def test_only_a_listening_stream_socket_is_adopted(listener: Listener) -> None:
    with pytest.raises(TypeError, match="Listener"):
        Listener.adopt(listener)
    with pytest.raises(TypeError, match="int"):
        Listener.adopt(3)  # type: ignore[arg-type]
    with socket.socket() as sock:
        with pytest.raises(OSError, match="listening"):
            Listener.adopt(sock)
        with pytest.raises(ValueError, match="backlog"):
            Listener.adopt(sock, backlog=-1)
        assert sock.fileno() >= 0
