"""`proxyproto-rs listen`: shows who connects, with which header, and what a real port would have done."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any

from proxyproto_rs import IncompleteHeader

from .. import listener_options
from ..colours import Colours, printable, shown, without_marks
from ..decode.fields import explain, looks_like
from ..decode.pasted import starts_a_header
from ..decode.report import of_header, written
from .certificate import NoCertificate, server_context
from .judging import Judge, Judgement, explained
from .receiving import Client, Received

if TYPE_CHECKING:
    import ssl

HELP = "show who connects to a port, with which PROXY header, and what a real port would have done"
EXTRA = None
EXAMPLES = """\
proxyproto-rs listen 8000
proxyproto-rs listen 127.0.0.1:8883 --tls --count 1
proxyproto-rs listen 1883 --trusted 10.0.0.0/8 --versions 2 --require-tls
"""

_REFUSED, _MISTAKE = 1, 2
_AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument(
        "address", metavar="[HOST:]PORT", type=_address, help="where to listen; port 0 takes any"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many connections")
    parser.add_argument(
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long a client must be silent behind its header until it is shown (default: 1)",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="speak TLS behind the header")
    tls.add_argument("--cert", metavar="FILE", help="the certificate, in PEM; by default openssl makes one")
    tls.add_argument("--key", metavar="FILE", help="its key, if it is not in the same file")
    real = parser.add_argument_group("what a real port would be told")
    listener_options.add_to(real)
    real.add_argument(
        "--versions",
        type=int,
        choices=(1, 2),
        action="append",
        default=argparse.SUPPRESS,
        help="the version taken",
    )
    real.add_argument(
        "--max-header-size",
        type=int,
        metavar="BYTES",
        default=argparse.SUPPRESS,
        help="the longest header taken",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show connections until the count is reached or the keyboard interrupts; return 1 if some would be refused."""
    options = {name: vars(arguments)[name] for name in _NAMES if name in arguments}
    showing = Showing(Colours(sys.stdout), arguments.wait)
    try:
        context = server_context(arguments.cert, arguments.key) if arguments.tls or arguments.cert else None
        with contextlib.closing(Judge(options)) as judge, _bind(*arguments.address) as sock:
            asyncio.run(showing.serve(sock, judge, context, arguments.count))
    except KeyboardInterrupt:
        pass
    except NoCertificate as wrong:
        sys.stderr.write(f"proxyproto-rs listen: {wrong}\n")
        return _MISTAKE
    except (TypeError, ValueError) as wrong:
        sys.stderr.write(f"proxyproto-rs listen: {wrong}\n")
        return _MISTAKE
    except OSError as wrong:
        host, port = arguments.address
        sys.stderr.write(f"proxyproto-rs listen: {host or '*'}:{port}: {wrong.strerror or wrong}\n")
        return _MISTAKE
    print(f"\n{showing.served} would have been served, {showing.refused} refused.")
    return _REFUSED if showing.refused else 0


_NAMES = (*listener_options.NAMES, "versions", "max_header_size")


class Showing:
    """Takes connections and prints what each was, a block of lines for each."""

    def __init__(self, colours: Colours, wait: float) -> None:
        self._colours, self._wait = colours, wait
        self.served: int = 0
        self.refused: int = 0

    async def serve(
        self, sock: socket.socket, judge: Judge, context: ssl.SSLContext | None, count: int | None
    ) -> None:
        """Show connections; `count` of them, or until it is cancelled. At most 64 are open at once."""
        sock.setblocking(False)
        print(f"Listening on {written(sock.getsockname())}. Ctrl-C ends it.", flush=True)
        places = asyncio.Semaphore(_AT_ONCE)
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while count is None or number < count:
            await places.acquire()
            number += 1
            conn, peer = await asyncio.get_running_loop().sock_accept(sock)
            task = asyncio.create_task(self._show(number, conn, peer, judge, context))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: places.release())
        await asyncio.gather(*tasks)

    async def _show(
        self, number: int, conn: socket.socket, peer: Any, judge: Judge, context: ssl.SSLContext | None
    ) -> None:
        judgement: Judgement | None = None
        try:
            with conn:
                conn.setblocking(False)
                client = Client(conn, context)
                write = await client.receive(judge.header_timeout, self._wait)
                received = client.received
                host = peer[0].removeprefix("::ffff:") if "." in peer[0] else peer[0]
                judgement = await asyncio.to_thread(
                    judge.judge,
                    host,
                    received.data,
                    has_ended=received.has_ended,
                    is_late=received.is_late,
                )
                lines = [f"--- {number}: {written((host, peer[1]))}", *self._lines(received, judgement)]
                print("\n".join(lines), flush=True)
                if write is not None and looks_like(received.behind) == "an HTTP request":
                    with contextlib.suppress(OSError, asyncio.TimeoutError):
                        await asyncio.wait_for(write(_answer(received, judgement)), 5)
        finally:
            if judgement is not None and judgement.place is not None:
                judgement.place.close()

    def _lines(self, received: Received, judgement: Judgement) -> list[str]:
        lines = []
        if not received.data:
            ending = "closed" if received.has_ended else "said nothing"
            lines.append(f"It {ending}, without a byte.")
        elif received.header_length is not None or starts_a_header(received.data) or not _is_text(received):
            lines += of_header(explain(received.data), self._colours)
        if received.tls:
            lines.append(f"TLS: {received.tls}")
        if received.behind:
            where = "in TLS" if received.tls and "failed" not in received.tls else "behind it"
            if received.header_length is None:
                where = "it sent" if not received.tls else where
            kind = looks_like(received.behind)
            lines.append(f"{where}: {len(received.behind)} bytes, which look like {kind}:")
            lines.append(f"  {shown(received.behind, 200)}")
        if judgement.is_served:
            self.served += 1
            told = self._colours.good(f"a real port: served as {judgement.outcome}")
        else:
            self.refused += 1
            told = self._colours.bad(f"a real port: refused, {judgement.outcome}")
        lines.append(f"{told}: {printable(judgement.detail) or without_marks(explained(judgement))}")
        return lines


def _is_text(received: Received) -> bool:
    """Whether what came is shown well enough as what was sent."""
    fault = explain(received.data).fault
    return bool(received.behind) and not isinstance(fault, IncompleteHeader)


def _answer(received: Received, judgement: Judgement) -> bytes:
    """Answer a client of HTTP with what its header said, so that curl shows it too."""
    lines = ["no PROXY header"]
    if received.header_length is not None:
        lines = of_header(explain(received.data[: received.header_length]), _PLAIN)
    body = "\n".join([*lines, f"outcome: {judgement.outcome}", ""]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class _NoTerminal:
    def isatty(self) -> bool:
        return False


_PLAIN = Colours(_NoTerminal())  # type: ignore[arg-type]  # nothing else of a stream is asked for


def _bind(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 0xFFFF):  # noqa: PLR2004
        raise argparse.ArgumentTypeError("it must be PORT, HOST:PORT or [IPv6]:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
