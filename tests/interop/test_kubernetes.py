"""docs/howto/kubernetes.md: a pod that comes past the balancer sends no header."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from interop.pages import run_example
from peers import CLIENT, V2, Peer, next_refusal
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxyproto_rs import Refusal

PAGE = "howto/kubernetes.md"
MQTT_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"


@pytest.fixture
def ports() -> Iterator[tuple[Listener, Listener]]:
    """The two Listeners of the page, on free ports. This machine is the balancer."""
    namespace = run_example(
        PAGE,
        "two-ports",
        replacements={
            '"0.0.0.0", 1883': '"127.0.0.1", 0',
            '"0.0.0.0", 1884': '"127.0.0.1", 0',
            "10.0.0.0/24": "127.0.0.1",
        },
    )
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(namespace["outside"]), stack.enter_context(namespace["inside"])


def test_clients_from_outside_have_a_header_and_pods_have_none(ports: tuple[Listener, Listener]) -> None:
    outside, inside = ports
    with Peer(outside.getsockname(), V2):
        conn, address = outside.accept()
        conn.close()
        assert address == CLIENT
    with Peer(inside.getsockname(), MQTT_CONNECT) as pod:
        conn, address = inside.accept()
        with conn:
            assert address == pod.sock.getsockname()
            assert conn.recv(100) == MQTT_CONNECT


# The log lines that the page shows for a pod that is in `trusted=`, and for one that is not.
REFUSED = [
    (["127.0.0.0/8"], "missing-header", "is an MQTT CONNECT"),
    (["10.0.0.0/24"], "untrusted", "trusted="),
]


@pytest.mark.parametrize(("trusted", "reason", "detail"), REFUSED, ids=["trusted", "untrusted"])
def test_a_pod_that_comes_past_the_balancer(trusted: list[str], reason: str, detail: str) -> None:
    refusals: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, trusted=trusted, on_refused=refusals.append) as listener,
        Peer(listener.getsockname(), MQTT_CONNECT),
    ):
        refusal = next_refusal(listener, refusals)
    assert refusal.reason == reason
    assert detail in refusal.detail


def test_pods_can_be_served_under_their_own_address() -> None:
    with (
        Listener("127.0.0.1", 0, trusted=["10.0.0.0/24"], untrusted="direct") as listener,
        Peer(listener.getsockname(), MQTT_CONNECT) as pod,
    ):
        conn, address = listener.accept()
        conn.close()
        assert address == pod.sock.getsockname()
