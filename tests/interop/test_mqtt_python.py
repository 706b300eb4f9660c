"""docs/howto/mqtt-python.md: its two servers carry messages, and know their clients' own addresses."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

from interop.pages import read, run_example
from interop.running import running
from proxyproto_rs import Header, Listener, create_connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

PAGE = "howto/mqtt-python.md"
CLIENTS = {"four": ("192.0.2.10", 50123), "six": ("2001:db8::42", 4242)}


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes((first, len(body))) + body


@contextlib.contextmanager
def client(listener: Listener, name: str) -> Iterator[socket.socket]:
    """A client that is let in: no user, clean session, keep-alive of a minute."""
    address = CLIENTS[name]
    header = Header.v2(address, ("2001:db8::1" if ":" in address[0] else "198.51.100.1", 1883))
    with create_connection(listener.getsockname(), 10, header=header) as sock:
        sock.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x3c" + text(name.encode())))
        assert receive(sock, 4) == b"\x20\x02\x00\x00"
        yield sock
        sock.sendall(b"\xe0\x00")


def receive(sock: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (chunk := sock.recv(count - len(received))):
        received += chunk
    return received


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["amqtt", "toy"])
def test_a_message_goes_from_one_client_to_the_other(
    name: str, loop: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "amqtt":
        pytest.importorskip("amqtt", reason="amqtt is not installed")
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    caplog.set_level(logging.INFO, logger="amqtt.broker")
    namespace = run_example(PAGE, name)
    message = packet(0x30, text(b"a") + b"hello")
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener,
        running(namespace, loop, listener, {}),
        client(listener, "four") as four,
        client(listener, "six") as six,
    ):
        four.sendall(packet(0x82, b"\x00\x07" + text(b"a") + b"\x00"))
        assert receive(four, 5) == b"\x90\x03\x00\x07\x00"
        six.sendall(message)
        assert receive(four, len(message)) == message
    told = caplog.text if name == "amqtt" else capsys.readouterr().out
    for host, port in CLIENTS.values():
        assert f"{host}:{port}" in told


def test_the_log_line_is_amqtts_own(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("amqtt", reason="amqtt is not installed")
    caplog.set_level(logging.INFO, logger="amqtt.broker")
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener,
        running(run_example(PAGE, "amqtt"), "asyncio", listener, {}),
        client(listener, "four"),
    ):
        pass
    line = "Connection from 192.0.2.10:50123 on listener 'default'"
    assert line in caplog.text
    assert f"`{line}`" in read(PAGE)


def test_the_toy_ends_what_is_too_long() -> None:
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"]) as listener,
        running(run_example(PAGE, "toy"), "asyncio", listener, {}),
        client(listener, "four") as four,
    ):
        four.sendall(b"\x30\xff\xff\xff\x7f")
        assert four.recv(1) == b""
