"""What a real port would have done with a connection: its bytes are given to a Listener with the same options."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxyproto_rs import AddressSet, Listener
from proxyproto_rs.explanations import ACCEPTED, REFUSED

from ..decode.pasted import starts_a_header

if TYPE_CHECKING:
    from proxyproto_rs import ProxiedSocket, Refusal

_LOOPBACK = "127.0.0.1"
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome, and why."""

    outcome: str
    detail: str
    place: ProxiedSocket | None = None
    """The connection at the Listener. While it is open it counts towards the limits; close it with the client's."""

    @property
    def is_served(self) -> bool:
        """Whether the connection would have been served, or closed as a health check."""
        return self.outcome in ACCEPTED


class Judge:
    """A Listener on loopback. It judges one connection at a time, from any thread.

    Whom to believe is judged here, because the Listener sees loopback only.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        options = dict(options)
        trusted = options.pop("trusted", None)
        self._trusted = None if trusted is None else AddressSet(trusted)
        self._serves_others = options.pop("untrusted", "refuse") == "direct"
        self._is_off = options.get("proxy_protocol") == "off"
        self._lock = threading.Lock()
        self._refusals: list[Refusal] = []
        # What it says is shown with the connection that it is about.
        logging.getLogger("proxyproto_rs.listener").addHandler(logging.NullHandler())
        options["trusted"] = [_LOOPBACK]
        self._listener = Listener(_LOOPBACK, 0, on_refused=self._refusals.append, **options)

    def close(self) -> None:
        """Stop listening on loopback."""
        self._listener.close()

    @property
    def header_timeout(self) -> float:
        """How long a connection has for its header, in seconds."""
        return float(self._listener.options["header_timeout"])

    def judge(self, peer: str, data: bytes, *, has_ended: bool, is_late: bool) -> Judgement:
        """Judge a connection from the address `peer`, which has sent `data`, and then has closed, is late, or stays."""
        if self._is_off:
            if starts_a_header(data):
                # A port without headers looks at what is there when it accepts. Here all is there.
                return Judgement("unexpected-header", f"{data[:24].hex(' ')} is a PROXY header")
        elif self._trusted is not None and peer not in self._trusted:
            if self._serves_others:
                return Judgement("direct", f"{peer} is not in --trusted, and what it sends is not looked at")
            return Judgement("untrusted", f"{peer} is not in --trusted")
        if is_late and self._is_off:
            return Judgement("direct", "")
        if is_late:
            return Judgement("timeout", f"no whole header came in {self.header_timeout:g} s")
        with self._lock:
            return self._ask(data, has_ended=has_ended)

    def _ask(self, data: bytes, *, has_ended: bool) -> Judgement:
        self._refusals.clear()
        before = self._listener.stats()
        with socket.create_connection(self._listener.getsockname(), _PATIENCE) as sock:
            # It may refuse, and reset, what is still being sent.
            with contextlib.suppress(OSError):
                sock.sendall(data)
                if has_ended:
                    sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + max(_PATIENCE, 2 * self.header_timeout)
            conn: ProxiedSocket | None = None
            while time.monotonic() < deadline:
                conn = conn or self._listener.try_accept()
                after = self._listener.stats()
                outcome = next((name for name in after if after[name] > before[name]), None)
                if outcome is not None and (conn or self._refusals or _needs_no_more(outcome, sock)):
                    detail = self._refusals[-1].detail if self._refusals else ""
                    return Judgement(outcome, detail, conn)
                self._wait()
        return Judgement("timeout", "its header was not whole in time")

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        poll.poll(20)


def _needs_no_more(outcome: str, sock: socket.socket) -> bool:
    """Whether the Listener neither gives the connection out nor writes a line: a probe, or a health check that it closed.

    It closes a check that has ended or that its options do not deliver, and delivers all others.
    """
    if outcome not in ("local", "unknown"):
        return outcome == "closed-early"
    with contextlib.suppress(BlockingIOError):
        try:
            return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except ConnectionError:
            return True
    return False


def explained(judgement: Judgement) -> str:
    """Return what the outcome means."""
    row = (ACCEPTED | REFUSED)[judgement.outcome]
    return row.meaning
