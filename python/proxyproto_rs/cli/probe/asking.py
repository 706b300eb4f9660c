"""One connection of a probe: connect, send a header or none, ask, and see what the server does. It ends by a deadline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .questions import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .questions import Question

ANSWERED, MISUNDERSTOOD, CLOSED, SILENT = "answered", "misunderstood", "closed", "silent"

_ENOUGH = 4096
_QUIET = 1.0
"""How long, in seconds, a server that speaks first must be silent until its greeting counts as whole."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a server did."""

    ending: str
    """One of `ANSWERED`, `MISUNDERSTOOD`, `CLOSED`, `SILENT`."""
    words: str
    answer: bytes = b""

    @property
    def is_answered(self) -> bool:
        return self.ending == ANSWERED


def ask(sock: socket.socket, opening: bytes, question: Question, host: str, timeout: float) -> Observation:
    """Send `opening` and the question on a connected socket, within `timeout` seconds. The caller closes the socket."""
    line = _Line(sock, time.monotonic() + timeout)
    try:
        line.send(opening)
        if question.is_tls:
            return _ask_tls(line, question, host)
        return _ask(line.send, line.receive, question, host, line)
    except TimeoutError:
        return Observation(SILENT, f"no answer in {timeout:g} s")
    except OSError as wrong:
        return Observation(CLOSED, _reset(wrong))


class _Line:
    """A socket with one deadline for all that is sent and received."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self.deadline = deadline

    def send(self, data: bytes) -> None:
        if data:
            self._sock.settimeout(self._left())
            self._sock.sendall(data)

    def receive(self, within: float | None = None) -> bytes:
        """Return what comes next, b"" at the end. `within` is in seconds."""
        self._sock.settimeout(self._left() if within is None else min(within, self._left()))
        return self._sock.recv(_ENOUGH)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _ask(
    send: Callable[[bytes], None], receive: Callable[[], bytes], question: Question, host: str, line: _Line
) -> Observation:
    # A server may refuse the header and close while we write. What it said before can still be read.
    with contextlib.suppress(BrokenPipeError):
        send(question.ask(host))
    data = b""
    while True:
        try:
            more = receive()
        except ConnectionError as wrong:
            return Observation(CLOSED, _reset(wrong), data)
        data += more
        if not more:
            return Observation(
                CLOSED, f"closed after {len(data)} bytes" if data else "closed without a word", data
            )
        answer = question.judge(data)
        if answer is not None or len(data) >= _ENOUGH:
            break
    if question.waits_for_more:
        return _wait_for_more(line, data, answer)
    if question.goodbye:
        with contextlib.suppress(OSError):
            send(question.goodbye)
    if answer is None:
        return Observation(MISUNDERSTOOD, "an endless answer", data)
    return Observation(ANSWERED if answer.is_understood else MISUNDERSTOOD, answer.words, data)


def _wait_for_more(line: _Line, data: bytes, answer: Answer | None) -> Observation:
    """Wait whether a server that has spoken also stays. Many greet first, and object to the header then."""
    words = answer.words if answer is not None else ""
    while len(data) < _ENOUGH:
        try:
            more = line.receive(within=_QUIET)
        except TimeoutError:
            return Observation(ANSWERED, words, data)
        except ConnectionError as wrong:
            return Observation(MISUNDERSTOOD, f"{words}, then {_reset(wrong)}", data)
        if not more:
            return Observation(MISUNDERSTOOD, f"{words}, and closes", data)
        data += more
    return Observation(ANSWERED, words, data)


_HANDSHAKE, _ALERT = 0x16, 0x15


def _ask_tls(line: _Line, question: Question, host: str) -> Observation:
    """Start TLS. The first record of the server tells: a handshake is an answer, and an alert an objection."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _context().wrap_bio(incoming, outgoing, server_hostname=host)
    first = b""

    def turn(operation: Callable[[], Any]) -> Any:
        nonlocal first
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                line.send(outgoing.read())
                data = line.receive()
                first = first or data
                incoming.write(data) if data else incoming.write_eof()
            else:
                line.send(outgoing.read())
                return result

    try:
        turn(tls.do_handshake)
        words = f"{tls.version()}"
        if question.ask(host):
            inner = _ask(
                lambda data: turn(lambda: tls.write(data)),
                lambda: turn(lambda: tls.read(_ENOUGH)),
                question,
                host,
                line,
            )
            words += f", and in it {inner.words}"
        return Observation(ANSWERED, words, first)
    except (ssl.SSLError, TimeoutError, ConnectionError) as wrong:
        # Certificates of clients are asked for behind the first record. The header was taken by then.
        if first[:1] == bytes([_HANDSHAKE]):
            return Observation(ANSWERED, f"TLS starts, and then fails: {_reason(wrong)}", first)
        if first[:1] == bytes([_ALERT]):
            return Observation(MISUNDERSTOOD, "a TLS alert", first)
        if first:
            return Observation(MISUNDERSTOOD, "no TLS", first)
        if isinstance(wrong, ssl.SSLError):
            return Observation(CLOSED, "closed without a word")
        raise


def _context() -> ssl.SSLContext:
    """Make a context that believes every certificate: nothing secret is sent, and the header is all that matters."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(wrong: Exception) -> str:
    return str(getattr(wrong, "reason", None) or wrong or type(wrong).__name__).lower().replace("_", " ")


def _reset(wrong: OSError) -> str:
    return "reset" if isinstance(wrong, ConnectionError) else f"failed: {wrong.strerror or wrong}"
