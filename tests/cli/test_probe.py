"""`proxyproto-rs probe` gives the right verdict on HAProxy, nginx, Mosquitto, ourselves in each mode, and odd servers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from interop import certificates
from interop.proxies import find_program, running_haproxy, running_nginx
from peers import free_port, until
from proxyproto_rs import Listener
from proxyproto_rs.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interop.certificates import Certificates

REQUIRED, OPTIONAL, OFF, IGNORED, UNCLEAR, UNREACHABLE = 0, 3, 4, 5, 6, 7


def probe(address: tuple[str, int], *options: str) -> int:
    host, port = address
    return main(["probe", f"{host}:{port}", "--timeout", "20", *options])


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def serving(
    listener: Any, serve: Callable[[Any], None], path: str | None = None
) -> Iterator[tuple[str, int]]:
    """Accept connections of a socket or a Listener in a thread, one at a time. `path` is that of a UNIX socket."""
    stopping = threading.Event()

    def accept() -> None:
        while not stopping.is_set():
            try:
                conn = listener.accept()[0]
            except OSError:
                return
            with conn, contextlib.suppress(OSError):
                conn.settimeout(30)
                serve(conn)

    thread = threading.Thread(target=accept)
    thread.start()
    address = listener.getsockname()[:2] if path is None else (path, 0)
    try:
        yield address
    finally:
        stopping.set()
        if isinstance(listener, socket.socket) and path is None:
            with contextlib.suppress(OSError):
                socket.create_connection(address, 10).close()
        listener.close()
        thread.join()


def serve_http(conn: Any) -> None:
    request = b""
    while b"\r\n\r\n" not in request and (more := conn.recv(4096)):
        request += more
    line = request.partition(b"\r\n")[0]
    status = b"204 No Content" if line.startswith(b"GET / HTTP/1.") else b"400 Bad Request"
    conn.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


def serve_connack(conn: Any) -> None:
    if conn.recv(1) == b"\x10":
        conn.sendall(b"\x20\x02\x00\x01")


# --- Ourselves, in each mode ---

OURSELVES = [
    ({"trusted": ["127.0.0.1"]}, REQUIRED),
    ({"trusted": ["127.0.0.1"], "versions": [1]}, REQUIRED),
    ({"trusted": ["127.0.0.1"], "versions": [2]}, REQUIRED),
    ({"trusted": ["127.0.0.1"], "proxy_protocol": "optional"}, OPTIONAL),
    ({"trusted": ["127.0.0.1"], "proxy_protocol": "optional", "versions": [2]}, OPTIONAL),
    ({"proxy_protocol": "off"}, OFF),
    ({"trusted": ["192.0.2.1"]}, UNCLEAR),
    ({"trusted": ["192.0.2.1"], "untrusted": "direct"}, OFF),
]


@pytest.mark.parametrize(("options", "status"), OURSELVES, ids=[str(options) for options, _ in OURSELVES])
@pytest.mark.parametrize(
    ("serve", "question"), [(serve_http, "--http"), (serve_connack, "--mqtt")], ids=["http", "mqtt"]
)
def test_ourselves(options: dict[str, Any], status: int, serve: Callable[[Any], None], question: str) -> None:
    with serving(Listener("127.0.0.1", 0, **options), serve) as address:
        assert probe(address, question) == status


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, REQUIRED), ({"versions": [1]}, REQUIRED), ({"proxy_protocol": "off"}, OFF)],
    ids=["required", "version 1", "off"],
)
def test_ourselves_on_a_unix_socket(
    options: dict[str, Any], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "app.sock")
    with serving(Listener.unix(path, **options), serve_http, path):
        assert main(["probe", f"unix:{path}", "--http", "--timeout", "20"]) == status
    assert f"unix:{path}, asked with GET / of HTTP" in capsys.readouterr().out
    assert main(["probe", f"{tmp_path}/nobody.sock"]) == UNREACHABLE


@pytest.mark.parametrize("version", [1, 2])
def test_the_only_version_is_named(version: int, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"trusted": ["127.0.0.1"], "versions": [version]}
    with serving(Listener("127.0.0.1", 0, **options), serve_http) as address:
        assert probe(address, "--http") == REQUIRED
    out = capsys.readouterr().out
    assert f"It takes version {version} only." in out
    assert ("send-proxy on the server line" if version == 1 else "send-proxy-v2 on the server line") in out


def serve_tls(context: ssl.SSLContext) -> Callable[[Any], None]:
    def serve(conn: Any) -> None:
        if isinstance(conn, socket.socket):
            # It takes the socket over, and closes it.
            with context.wrap_socket(conn, server_side=True) as secured:
                serve_http(secured)
        else:
            serve_http(conn.start_tls(context))

    return serve


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"trusted": ["127.0.0.1"]}, REQUIRED),
        ({"trusted": ["127.0.0.1"], "proxy_protocol": "optional"}, OPTIONAL),
        ({"proxy_protocol": "off"}, OFF),
    ],
    ids=["required", "optional", "off"],
)
@pytest.mark.parametrize("inner", [[], ["--http"]], ids=["tls", "https"])
def test_ourselves_with_tls(
    options: dict[str, Any], status: int, inner: list[str], certs: Certificates
) -> None:
    listener = Listener("127.0.0.1", 0, **options)
    with serving(listener, serve_tls(certs.server_context())) as address:
        assert probe(address, "--tls", *inner) == status


def test_certificates_that_the_server_asks_for_do_not_hide_the_verdict(certs: Certificates) -> None:
    context = certs.server_context()
    context.load_verify_locations(certs.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(Listener("127.0.0.1", 0, trusted=["127.0.0.1"]), serve_tls(context)) as address:
        assert probe(address, "--tls", "--http") == REQUIRED


# --- Other servers ---


@contextlib.contextmanager
def haproxy(bind: str, directory: Path) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as front:
        configuration = f"""
frontend f
    mode http
    bind fd@{front.fileno()} {bind}
    http-request return status 200
"""
        with running_haproxy(configuration, directory, front):
            yield front.getsockname()


@pytest.mark.parametrize(
    ("bind", "status"), [("accept-proxy", REQUIRED), ("", OFF)], ids=["accept-proxy", "plain"]
)
def test_haproxy(bind: str, status: int, tmp_path: Path) -> None:
    with haproxy(bind, tmp_path) as address:
        assert probe(address, "--http") == status


@pytest.mark.parametrize(
    ("more", "status"), [("accept-proxy", REQUIRED), ("", OFF)], ids=["accept-proxy", "plain"]
)
def test_haproxy_with_tls(more: str, status: int, tmp_path: Path, certs: Certificates) -> None:
    with haproxy(f"{more} ssl crt {certs.server}", tmp_path) as address:
        assert probe(address, "--tls", "--http") == status
        assert probe(address, "--tls") == status


@contextlib.contextmanager
def nginx(options: str, directory: Path, more: str = "") -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as front:
        host, port = front.getsockname()
        configuration = f"""
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{ listen {host}:{port} {options}; {more} return 204; }}
}}
"""
        with running_nginx(configuration, directory, front):
            yield host, port


@pytest.mark.parametrize(("options", "status"), [("proxy_protocol", REQUIRED), ("", OFF)], ids=["on", "off"])
def test_nginx(options: str, status: int, tmp_path: Path) -> None:
    with nginx(options, tmp_path) as address:
        assert probe(address, "--http") == status


@pytest.mark.parametrize(
    ("options", "status"), [("proxy_protocol ssl", REQUIRED), ("ssl", OFF)], ids=["on", "off"]
)
def test_nginx_with_tls(options: str, status: int, tmp_path: Path, certs: Certificates) -> None:
    more = f"ssl_certificate {certs.server}; ssl_certificate_key {certs.server};"
    with nginx(options, tmp_path, more) as address:
        assert probe(address, "--tls") == status


@contextlib.contextmanager
def mosquitto(directory: Path, more: str = "") -> Iterator[tuple[tuple[str, int], Path]]:
    with free_port() as port:
        log = directory / "mosquitto.log"
        configuration = f"listener {port} 127.0.0.1\nlog_dest stderr\nlog_type all\n{more}\n"
        (directory / "mosquitto.conf").write_text(configuration)
        command = [find_program("mosquitto"), "-c", str(directory / "mosquitto.conf")]
        with log.open("wb") as told, subprocess.Popen(command, stderr=told) as process:
            try:
                until(lambda: listens(port) or process.poll() is not None)
                assert process.poll() is None
                yield ("127.0.0.1", port), log
            finally:
                process.terminate()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("anonymous", ["true", "false"])
def test_mosquitto(anonymous: str, tmp_path: Path) -> None:
    with mosquitto(tmp_path, f"allow_anonymous {anonymous}") as (address, log):
        assert probe(address, "--mqtt") == OFF
    # A login would be "New client connected". Nobody was logged in, and nobody was refused a login.
    told = log.read_text()
    assert "New connection from" in told
    assert "New client connected" not in told
    assert "not authorised" not in told


def test_mosquitto_behind_a_port_that_wants_a_header(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true") as ((host, port), _):
        configuration = """
listen f
    mode tcp
    bind fd@{fd} accept-proxy
    server s {host}:{port}
"""
        with socket.create_server(("127.0.0.1", 0)) as front:
            text = configuration.format(fd=front.fileno(), host=host, port=port)
            with running_haproxy(text, tmp_path, front):
                assert probe(front.getsockname(), "--mqtt") == REQUIRED


def test_a_broker_that_answers_no_unknown_version_is_asked_politely_and_left() -> None:
    packets = []

    def serve(conn: Any) -> None:
        first = conn.recv(4096)
        if first[8:9] == b"\x04":
            conn.sendall(b"\x20\x02\x00\x00")
            packets.append(first)
            packets.append(conn.recv(4096))

    with serving(Listener("127.0.0.1", 0, trusted=["127.0.0.1"], versions=[2]), serve) as address:
        assert probe(address, "--mqtt") == REQUIRED
    connect, disconnect = packets
    # A clean session, without a will, a user name and a password, and a DISCONNECT.
    assert connect[9] == 0x02
    assert disconnect == b"\xe0\x00"


def serve_ssh(conn: Any) -> None:
    conn.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    first = conn.recv(256)
    if first and not first.startswith(b"SSH-"):
        conn.sendall(b"Invalid SSH identification string.\r\n")


def serve_smtp(conn: Any) -> None:
    conn.sendall(b"220 mail.example ESMTP\r\n")
    while conn.recv(256):
        conn.sendall(b"500 5.5.2 Error: command not recognized\r\n")


@pytest.mark.parametrize("serve", [serve_ssh, serve_smtp], ids=["ssh", "smtp"])
def test_servers_that_speak_first(serve: Callable[[Any], None]) -> None:
    with serving(socket.create_server(("127.0.0.1", 0)), serve) as address:
        assert probe(address, "--silent") == OFF
    options: dict[str, Any] = {"trusted": ["127.0.0.1"], "header_timeout": 1.0}
    with serving(Listener("127.0.0.1", 0, **options), serve) as address:
        assert probe(address, "--silent") == REQUIRED


def serve_whatever_comes(conn: Any) -> None:
    conn.recv(4096)
    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_server_that_overlooks_headers() -> None:
    with serving(socket.create_server(("127.0.0.1", 0)), serve_whatever_comes) as address:
        assert probe(address, "--http") == IGNORED


def serve_an_endless_answer(conn: Any) -> None:
    conn.recv(4096)
    while True:
        conn.sendall(b"HTTP/1.1" * 1000)


HOSTILE: dict[str, Callable[[Any], None]] = {
    "endless": serve_an_endless_answer,
    "closes": lambda _conn: None,
    "escape": lambda conn: conn.sendall(b"\x1b[2J\x9b\xff" * 20),
    "half-connack": lambda conn: conn.sendall(b"\x20"),
}


@pytest.mark.parametrize("question", ["--http", "--mqtt", "--tls", "--silent"])
@pytest.mark.parametrize("serve", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_servers_are_survived(
    serve: Callable[[Any], None], question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket.create_server(("127.0.0.1", 0)), serve) as address:
        probe(address, question, "--timeout", "2")
    out = capsys.readouterr().out
    assert len(out) < 2000
    assert out.isascii()
    assert "\x1b" not in out


def test_a_server_that_says_nothing_is_waited_for_and_no_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        assert main(["probe", f"{host}:{port}", "--mqtt", "--timeout", "0.1"]) == UNCLEAR


def test_nobody_there() -> None:
    with free_port() as port:
        assert probe(("127.0.0.1", port)) == UNREACHABLE


def test_without_options_all_is_tried_until_one_tells(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Listener("127.0.0.1", 0, trusted=["127.0.0.1"]), serve_connack) as address:
        assert probe(address) == REQUIRED
    assert "asked with an MQTT CONNECT" in capsys.readouterr().out


def test_one_variant_says_what_comes_back_and_what_the_header_said() -> None:
    headers = []

    def serve(conn: Any) -> None:
        headers.append(conn.header)
        serve_http(conn)

    options = ["--source", "192.0.2.1:51000", "--tlv", "authority=shop.example", "--tlv", "0xe1=hex:00ff"]
    with serving(Listener("127.0.0.1", 0, trusted=["127.0.0.1"]), serve) as address:
        assert probe(address, "--http", "--v2", *options) == 0
        assert probe(address, "--http", "--none") == UNCLEAR
        assert probe(address, "--http", "--v1", "--source", "2001:db8::7") == 0
    assert headers[0].source == ("192.0.2.1", 51000)
    assert headers[0].tlvs == ((2, b"shop.example"), (0xE1, b"\x00\xff"))
    assert headers[1].source_ip.exploded.endswith("0007")


WRONG = [
    ["localhost"],
    [":80"],
    ["localhost:http"],
    ["localhost:65536"],
    ["localhost:80", "--source", "example.com"],
    ["localhost:80", "--source", "192.0.2.1:-1"],
    ["localhost:80", "--tlv", "2"],
    ["localhost:80", "--tlv", "256=x"],
    ["localhost:80", "--tlv", "1=hex:0"],
    ["localhost:80", "--timeout", "nan"],
    ["localhost:80", "--mqtt", "--http"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_cannot_be_probed_is_a_mistake(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["probe", *arguments])
    assert ended.value.code == 2


def test_a_header_that_cannot_be_sent_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert probe(server.getsockname(), "--v2", "--http", "--tlv", "unique-id=" + "x" * 129) == 2
    assert "no such header can be sent" in capsys.readouterr().err
