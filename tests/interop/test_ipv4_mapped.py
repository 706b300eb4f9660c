"""The facts of docs/topics/ipv4-mapped.md: where an IPv4 address shows in which form, behind HAProxy and nginx."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from interop.pages import example, run_example
from interop.proxies import running_haproxy, running_nginx
from peers import Peer, next_refusal
from proxyproto_rs import Header, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxyproto_rs import Refusal

PAGE = "topics/ipv4-mapped.md"
MAPPED = Header.v2(("::ffff:192.0.2.1", 51000), ("::ffff:198.51.100.1", 443))


@contextlib.contextmanager
def dual_stack() -> Iterator[socket.socket]:
    """A listening socket of a proxy, for IPv4 and IPv6."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        yield sock


def address_seen(listener: Listener, front: tuple[Any, ...]) -> Any:
    """Connect to the proxy over IPv4. Return the header that the proxy sends."""
    listener.settimeout(10)
    with socket.create_connection(("127.0.0.1", front[1]), 10, source_address=("127.0.0.2", 0)) as client:
        client.sendall(b"hello")
        conn, address = listener.accept()
        conn.close()
        assert address[1] == client.getsockname()[1]
    return address


@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
def test_haproxy_with_one_socket_for_both_families(sends: str, listener: Listener, tmp_path: Path) -> None:
    host, port = listener.getsockname()
    with dual_stack() as front:
        # The socket that `bind :::8000 v4v6` makes. HAProxy gets it from us, so its port is certainly free.
        configuration = f"""
listen app
    mode tcp
    bind fd@{front.fileno()}
    server app1 {host}:{port} {sends}
"""
        with running_haproxy(configuration, tmp_path, front):
            assert address_seen(listener, front.getsockname())[0] == "::ffff:127.0.0.2"


def test_nginx_with_one_socket_for_both_families(listener: Listener, tmp_path: Path) -> None:
    host, port = listener.getsockname()
    with dual_stack() as front:
        configuration = f"""
stream {{
    server {{
        listen [::]:{front.getsockname()[1]} ipv6only=off;
        proxy_pass {host}:{port};
        proxy_protocol on;
    }}
}}
"""
        with running_nginx(configuration, tmp_path, front):
            assert address_seen(listener, front.getsockname())[0] == "::ffff:127.0.0.2"


def test_haproxy_with_a_socket_for_each_family_sends_plain_ipv4(listener: Listener, tmp_path: Path) -> None:
    host, port = listener.getsockname()
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        changes = {
            "bind 0.0.0.0:8000": f"bind fd@{four.fileno()}",
            "bind :::8000 v6only": f"bind fd@{six.fileno()}",
            "10.0.0.20:8000": f"{host}:{port}",
            " check": "",
        }
        with running_haproxy(example(PAGE, "haproxy", changes), tmp_path, four, six):
            assert address_seen(listener, four.getsockname())[0] == "127.0.0.2"


def test_the_header_decides_the_form_and_the_page_makes_it_plain(listener: Listener) -> None:
    namespace = {**run_example(PAGE, "plain"), "listener": listener}
    with Peer(listener.getsockname(), MAPPED.encode()):
        exec(example(PAGE, "use"), namespace)
        with namespace["conn"] as conn:
            assert namespace["address"] == ("::ffff:192.0.2.1", 51000, 0, 0) == conn.getpeername()
            assert conn.getsockname() == ("::ffff:198.51.100.1", 443, 0, 0)
            assert conn.header.source == ("::ffff:192.0.2.1", 51000, 0, 0)
            assert str(conn.header.source_ip.ipv4_mapped) == "192.0.2.1"
    assert namespace["host"] == "192.0.2.1"
    assert [namespace["plain"](host) for host in ("192.0.2.1", "2001:db8::1")] == ["192.0.2.1", "2001:db8::1"]


def test_a_direct_client_has_the_form_of_the_kernel() -> None:
    with (
        Listener("", 0, trusted=["10.0.0.1"], untrusted="direct") as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        conn, address = listener.accept()
        conn.close()
        assert address == ("::ffff:127.0.0.1", client.getsockname()[1], 0, 0)


@pytest.mark.parametrize("entry", ["192.0.2.0/24", "::ffff:192.0.2.0/120"])
def test_rules_and_log_lines_mean_the_same_client(entry: str, caplog: pytest.LogCaptureFixture) -> None:
    refusals: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"], deny=[entry], on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), MAPPED.encode()),
    ):
        refusal = next_refusal(listener, refusals)
    assert (refusal.reason, refusal.client) == ("denied", ("192.0.2.1", 51000))
    assert "refused 192.0.2.1:51000 (by 127.0.0.1:" in caplog.text


def test_limits_count_both_forms_as_one_client() -> None:
    plain = Header.v2(("192.0.2.1", 51001), ("198.51.100.1", 443))
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"], max_connections_per_client=1) as listener,
        Peer(listener.getsockname(), plain.encode()),
        listener.accept()[0],
        Peer(listener.getsockname(), MAPPED.encode()) as second,
    ):
        assert second.sees_the_end()
        assert listener.stats()["too-many-from-client"] == 1
