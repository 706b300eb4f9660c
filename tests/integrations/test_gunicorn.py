"""gunicorn with the hooks of `proxyproto_rs.gunicorn`: every kind of worker, and restarts under load that lose nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from integrations.asking import TLVS, WITH_TLS, Connection, connection, get
from integrations.load import Load, ask_beside_a_busy_worker
from peers import CLIENT, SERVER, Peer, TlsPeer, make_contexts, until
from proxyproto_rs import Header
from proxyproto_rs.gunicorn import hooks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONF = """
from proxyproto_rs.gunicorn import hooks
post_fork, worker_exit = hooks(trusted=["127.0.0.0/8"])
"""

WSGI = """
import os
from proxyproto_rs.wsgi import ProxyProtocolMiddleware

@ProxyProtocolMiddleware
def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("slow").read()
    header = environ["proxyproto.header"]
    answer = f"{environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']} {header and header.authority} {os.getpid()}"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer.encode()]
"""

ASGI = """
import os
from proxyproto_rs.asgi import ProxyProtocolMiddleware

@ProxyProtocolMiddleware
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": message["type"] + ".complete"})
        return
    header = scope["extensions"]["proxy_protocol"]
    answer = f"{scope['client'][0]} {scope['scheme']} {header['authority']} {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
"""

TORNADO = """
import os
import tornado.web
from proxyproto_rs import get_header

class Handler(tornado.web.RequestHandler):
    def get(self):
        authority = get_header(self).authority
        self.write(f"{self.request.remote_ip} {self.request.protocol} {authority} {os.getpid()}")

app = tornado.web.Application([("/.*", Handler)])
"""

UVICORN, UVICORN_ON_ASYNCIO = "uvicorn_worker.UvicornWorker", "uvicorn_worker.UvicornH11Worker"
APPS = {
    "sync": WSGI,
    "gthread": WSGI,
    "gevent": WSGI,
    "gevent_pywsgi": WSGI,
    "tornado": TORNADO,
    "asgi": ASGI,
    "asgi --asgi-loop asyncio": ASGI,
    UVICORN: ASGI,
    UVICORN_ON_ASYNCIO: ASGI,
}
EVERY_WORKER = pytest.mark.parametrize("worker", list(APPS))


class Gunicorn:
    """A running gunicorn. Its socket is ours and listens already, so no test waits for gunicorn."""

    def __init__(self, process: subprocess.Popen[bytes], listening: socket.socket) -> None:
        self.process = process
        self.listening = listening


@contextlib.contextmanager
def running(
    directory: Path,
    worker: str,
    *arguments: str,
    conf: str = CONF,
    passed: tuple[int, ...] = (),
    sock: socket.socket | None = None,
) -> Iterator[Gunicorn]:
    (directory / "gunicorn.conf.py").write_text(conf)
    (directory / "app.py").write_text(APPS[worker])
    with (
        sock or socket.create_server(("127.0.0.1", 0), backlog=1024) as listening,
        (directory / "log").open("w+") as log,
    ):
        fd = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", "app:app", "--bind", f"fd://{fd}", "--no-control-socket"]
        process = subprocess.Popen(
            # A worker that gets the signal while it starts misses it. gunicorn then waits for 30 s by default.
            [
                *command,
                "--worker-class",
                *worker.split(),
                "--workers",
                "2",
                "--graceful-timeout",
                "2",
                *arguments,
            ],
            cwd=directory,
            pass_fds=[fd, *passed],
            stderr=log,
        )
        try:
            yield Gunicorn(process, listening)
        finally:
            process.terminate()
            process.wait()
            log.seek(0)
            text = log.read()
            print(text)
    assert process.returncode == 0
    assert "Traceback" not in text


@EVERY_WORKER
def test_the_application_is_told_what_the_header_says(worker: str, tmp_path: Path) -> None:
    with running(tmp_path, worker) as gunicorn:
        answers = {get(gunicorn.listening).rpartition(" ")[0] for _ in range(4)}
    assert answers == {"192.0.2.1 https shop.example"}


@pytest.mark.parametrize("worker", ["sync", "tornado", "asgi"])
def test_a_unix_socket_hides_nobody(worker: str, tmp_path: Path) -> None:
    """Tornado's own server says 0.0.0.0."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "socket"))
    sock.listen()
    with running(tmp_path, worker, sock=sock) as gunicorn:
        assert get(gunicorn.listening).startswith("192.0.2.1 https shop.example ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"truested": []}, "Did you mean 'trusted'"),
        ({"trusted": ["nonsense"]}, "is not an IPv4 or IPv6 address"),
        ({"max_connections": 0}, "must be at least 1"),
    ],
)
def test_a_wrong_option_fails_in_the_configuration_file(options: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        hooks(**options)


def test_options_that_need_trusted_may_have_it_from_the_setting_of_gunicorn() -> None:
    hooks(proxy_protocol="optional")


LIMITED = CONF.replace("hooks(", "hooks(max_connections_per_client=1, ")


@EVERY_WORKER
def test_tls_in_gunicorn_hides_no_client_and_lifts_no_limit(worker: str, tmp_path: Path) -> None:
    """Before, `wrap_socket` gave the client's place back and hid the header."""
    _, client_context = make_contexts(tmp_path)
    pem, header = str(tmp_path / "server.pem"), Header.v2(CLIENT, SERVER, tlvs=TLVS[:3]).raw
    tls = ["--certfile", pem, "--keyfile", pem, "--workers", "1"]
    with running(tmp_path, worker, *tls, conf=LIMITED) as gunicorn:
        address = gunicorn.listening.getsockname()
        with connection(gunicorn.listening, header, client_context) as proxied:
            assert proxied.get().startswith("192.0.2.1 https shop.example ")
            # This worker serves one client at a time, so a second one shows nothing.
            if worker != "sync":
                with Peer(address, header) as second:
                    assert second.sees_the_end()

        def is_served() -> bool:
            with contextlib.suppress(OSError), Peer(address) as peer:
                another = TlsPeer(peer, client_context, before=header)
                another.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return another.receive().startswith(b"HTTP/1.")
            return False

        until(is_served)


@EVERY_WORKER
def test_restarts_lose_nothing(worker: str, tmp_path: Path) -> None:
    """Each worker ends after 100 requests, and all end at a SIGHUP."""
    with running(tmp_path, worker, "--max-requests", "100", "--graceful-timeout", "10") as gunicorn:
        load = Load(gunicorn.listening)
        with load.running():
            # The worker "gevent_pywsgi" does not count its requests.
            load.wait_for_processes(2 if worker == "gevent_pywsgi" else 4)
            gunicorn.process.send_signal(signal.SIGHUP)
            load.wait_for_processes(2)
        assert load.failures == []


# For gunicorn.conf.py: a worker writes a byte to the fd when it takes no more connections.
TELLS = """
import os
from proxyproto_rs import Listener

def telling(method):
    def call(self):
        method(self)
        os.write({fd}, b"!")
    return call

Listener.drain, Listener.close = telling(Listener.drain), telling(Listener.close)
"""


@EVERY_WORKER
def test_a_header_that_is_late_when_its_worker_ends_has_its_time(worker: str, tmp_path: Path) -> None:
    told, tells = os.pipe()
    with (
        open(told, "rb", buffering=0) as ended,
        open(tells, "wb"),
        running(
            tmp_path, worker, "--workers", "1", conf=CONF + TELLS.format(fd=tells), passed=(tells,)
        ) as gunicorn,
        Peer(gunicorn.listening.getsockname(), WITH_TLS.raw[:20]) as late,
    ):
        get(gunicorn.listening)  # the worker takes connections in their order, so it has the late one now
        gunicorn.process.send_signal(signal.SIGHUP)
        assert ended.read(1) == b"!"
        late.send(WITH_TLS.raw[20:])
        assert Connection(late.sock).get(Connection="close").startswith("192.0.2.1 ")


def test_nobody_waits_behind_a_busy_worker(tmp_path: Path) -> None:
    """If a Listener took connections ahead, a busy worker would keep some waiting."""
    os.mkfifo(tmp_path / "slow")
    with running(tmp_path, "sync") as gunicorn:
        ask_beside_a_busy_worker(gunicorn.listening, tmp_path / "slow")


DEFAULTS = "from proxyproto_rs.gunicorn import post_fork, worker_exit\n"


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "*"])
def test_who_gunicorn_lets_send_headers_is_believed(allowed: str, tmp_path: Path) -> None:
    conf = DEFAULTS + f"proxy_allow_ips = {allowed!r}\n"
    with running(tmp_path, "sync", conf=conf) as gunicorn:
        assert get(gunicorn.listening).startswith("192.0.2.1 https")


def test_nobody_else_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = DEFAULTS + "proxy_allow_ips = '192.0.2.0/24'\n"
    with (
        running(tmp_path, "sync", conf=conf) as gunicorn,
        Peer(gunicorn.listening.getsockname(), WITH_TLS.raw) as peer,
    ):
        assert peer.sees_the_end()
    assert "untrusted" in capsys.readouterr().out
