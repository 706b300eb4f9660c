"""`proxyproto-rs listen` shows what curl, HAProxy, TLS clients and strangers send, and judges as a real port would."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cli import keyboard
from interop.proxies import find_program, running_haproxy
from peers import LOCAL, SIGNATURE, V1, V2, Peer
from proxyproto_rs.cli.listen.judging import Judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVED, REFUSED = 0, 1


@dataclass
class Listening:
    """A running command."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    told: str = ""
    status: int | None = field(default=None)

    def end(self) -> str:
        """Wait until it has seen its count of connections; return what it told."""
        self.told, _ = self.process.communicate(timeout=50)
        self.status = self.process.returncode
        return self.told


@contextlib.contextmanager
def listening(*options: str, count: int = 1) -> Iterator[Listening]:
    command = [sys.executable, "-m", "proxyproto_rs.cli", "listen", "127.0.0.1:0", "--count", str(count)]
    command += ["--wait", "20", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=keyboard.heed) as process:  # noqa: PLW1509 - it takes no lock
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"Listening on (.*):(\d+)\. Ctrl-C ends it\.\n", line)
        try:
            assert found, line
            yield Listening(process, (found[1], int(found[2])))
        finally:
            process.kill()


def send(data: bytes, *options: str) -> Listening:
    """Let one peer send, and close."""
    with listening(*options) as seen:
        with Peer(seen.address, data) as peer:
            peer.end()
            peer.receive()
        seen.end()
    return seen


def curl(*arguments: str) -> str:
    command = [find_program("curl"), "--silent", "--noproxy", "*", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_curl_is_shown_and_answered() -> None:
    with listening() as seen:
        host, port = seen.address
        answer = curl("--haproxy-protocol", f"http://{host}:{port}/")
        told = seen.end()
    assert seen.status == SERVED
    for text in (told, answer):
        assert "A valid header of version 1, PROXY INET/STREAM" in text
    assert "behind it: " in told
    assert "which look like an HTTP request" in told
    assert "a real port: served as v1" in told
    assert "1 would have been served, 0 refused." in told


def test_curl_with_tls_is_shown() -> None:
    find_program("openssl")
    with listening("--tls") as seen:
        host, port = seen.address
        answer = curl("--haproxy-protocol", "--insecure", f"https://{host}:{port}/")
        told = seen.end()
    assert "A valid header of version 1" in answer
    assert "TLS: TLSv1." in told
    assert "in TLS: " in told
    assert "GET / HTTP/1.1" in told


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "a real port: refused, missing-header"),
        (["--proxy-protocol", "off"], "a real port: served as direct"),
    ],
    ids=["required", "off"],
)
def test_openssl_is_shown(options: list[str], expected: str) -> None:
    """It sends no header. What it says in TLS is shown all the same."""
    openssl = find_program("openssl")
    with listening("--tls", *options) as seen:
        host, port = seen.address
        command = [
            openssl,
            "s_client",
            "-connect",
            f"{host}:{port}",
            "-servername",
            "broker.example",
            "-tls1_3",
        ]
        done = subprocess.run(
            command, input="hello\n", capture_output=True, text=True, timeout=30, check=False
        )
        told = seen.end()
    assert "CONNECTED(" in done.stdout
    assert "TLS: TLSv1.3, " in told
    assert "hello" in told
    assert expected in told


HAPROXY = """
listen f
    mode tcp
    bind fd@{fd}
    server s {host}:{port} {options}
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("send-proxy", "A valid header of version 1, PROXY INET/STREAM"),
        ("send-proxy-v2 proxy-v2-options unique-id,crc32c", "A valid header of version 2, PROXY INET/STREAM"),
    ],
    ids=["v1", "v2"],
)
def test_haproxy_is_shown(options: str, expected: str, tmp_path: Path) -> None:
    with listening("--trusted", "127.0.0.0/8") as seen, socket.create_server(("127.0.0.1", 0)) as front:
        host, port = seen.address
        text = HAPROXY.format(fd=front.fileno(), host=host, port=port, options=options)
        with (
            running_haproxy(text, tmp_path, front),
            socket.create_connection(front.getsockname(), 30) as client,
        ):
            own = client.getsockname()
            client.sendall(b"\x10\x0c\x00\x04MQTT")
            client.shutdown(socket.SHUT_WR)
            told = seen.end()
    assert expected in told
    assert f"  client       127.0.0.1:{own[1]}" in told
    assert "which look like an MQTT CONNECT" in told
    assert seen.status == SERVED
    if "v2" in options:
        assert "03 CRC32C" in told


def test_haproxy_with_tls_behind_the_header_is_shown(tmp_path: Path) -> None:
    find_program("openssl")
    with listening("--tls") as seen, socket.create_server(("127.0.0.1", 0)) as front:
        host, port = seen.address
        options = "send-proxy-v2 ssl verify none"
        text = HAPROXY.format(fd=front.fileno(), host=host, port=port, options=options)
        with (
            running_haproxy(text, tmp_path, front),
            socket.create_connection(front.getsockname(), 30) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"A valid header of version 2" in client.recv(65536)
            told = seen.end()
    assert "TLS: TLSv1." in told
    assert "in TLS: 18 bytes, which look like an HTTP request" in told


def test_a_client_that_trusts_nobody_is_shown_as_a_failed_handshake() -> None:
    find_program("openssl")
    with listening("--tls") as seen:
        with socket.create_connection(seen.address, 30) as sock:
            sock.sendall(V2)
            with (
                pytest.raises(ssl.SSLError),
                ssl.create_default_context().wrap_socket(sock, server_hostname="localhost"),
            ):
                pass
        told = seen.end()
    assert "TLS: the handshake failed" in told


JUDGED = [
    (V2, [], "served as v2"),
    (LOCAL, [], "served as local"),
    (LOCAL, ["--health-checks", "close"], "served as local"),
    (V2 + b"hello", ["--versions", "1"], "refused, version-not-allowed"),
    (V2, ["--trusted", "192.0.2.0/24"], "refused, untrusted: 127.0.0.1 is not in --trusted"),
    (V2, ["--trusted", "192.0.2.0/24", "--untrusted", "direct"], "served as direct"),
    (V2, ["--require-tls"], "refused, tls-required: the header tells nothing of the client's TLS"),
    (V2, ["--deny", "192.0.2.0/24"], "refused, denied: deny 192.0.2.0/24 covers it"),
    (V2, ["--allow", "10.0.0.0/8"], "refused, denied: 192.0.2.1 is not in allow= (1 network)"),
    (V1, ["--proxy-protocol", "off"], "refused, unexpected-header"),
    (b"GET / HTTP/1.1\r\n\r\n", [], "refused, missing-header"),
    (b"GET / HTTP/1.1\r\n\r\n", ["--proxy-protocol", "optional"], "served as direct"),
    (b"GET / HTTP/1.1\r\n\r\n", ["--proxy-protocol", "off"], "served as direct"),
    (V1.replace(b" 443", b" 0443"), [], "refused, malformed: invalid PROXY header at byte 40"),
    (SIGNATURE + b"\x21\x11\x20\x00" + bytes(12) + b"\x04\x1f\xf1" + bytes(8177), [], "refused, oversized"),
    (V1[:20], [], "refused, closed-early: the peer closed after 20 bytes"),
    (b"", [], "refused, closed-early"),
]


@pytest.mark.parametrize(
    ("data", "options", "expected"), JUDGED, ids=[expected[:34] for *_, expected in JUDGED]
)
def test_it_judges_as_a_real_port(data: bytes, options: list[str], expected: str) -> None:
    seen = send(data, *options)
    assert f"a real port: {expected}" in seen.told
    assert seen.status == (SERVED if expected.startswith("served") else REFUSED)


def test_limits_count_open_connections() -> None:
    with contextlib.closing(Judge({"max_connections_per_client": 1})) as judge:
        first = judge.judge("127.0.0.1", V2, has_ended=False, is_late=False)
        second = judge.judge("127.0.0.1", V2, has_ended=False, is_late=False)
        assert (first.outcome, second.outcome) == ("v2", "too-many-from-client")
        assert first.place is not None
        first.place.close()
        third = judge.judge("127.0.0.1", V2, has_ended=False, is_late=False)
        assert (third.outcome, third.place is None) == ("v2", False)
        assert third.place is not None
        third.place.close()


def test_a_peer_that_stays_silent_is_late() -> None:
    with listening("--header-timeout", "0.1") as seen, Peer(seen.address, b"PROXY TCP4") as peer:
        peer.receive()
        told = seen.end()
    assert "a real port: refused, timeout: no whole header came in 0.1 s" in told
    assert "The beginning of a header" in told


def test_hostile_bytes_are_escaped_and_cut() -> None:
    seen = send(V2 + b"\x1b[31m\x9b\xff" * 5000)
    assert "\x1b" not in seen.told
    assert seen.told.isascii()
    assert len(seen.told) < 4000


def test_the_keyboard_ends_it() -> None:
    with listening(count=9) as seen:
        seen.process.send_signal(signal.SIGINT)
        assert "0 would have been served, 0 refused." in seen.end()
    assert seen.status == SERVED


MISTAKES = [
    (["nowhere"], "it must be PORT"),
    (["127.0.0.1:0", "--trusted", "lb.example"], "lb.example"),
    (["127.0.0.1:0", "--cert", "/nonexistent.pem"], "the certificate /nonexistent.pem cannot be used"),
    (["192.0.2.1:0"], "192.0.2.1:0: "),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_mistakes_are_status_2(arguments: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "proxyproto_rs.cli", "listen", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
