"""`proxyproto-rs probe`: does that server want, ignore or refuse a PROXY header? It tells by the server's behaviour."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxyproto_rs import Header

from ..colours import Colours, printable
from . import verdict as v
from .asking import Observation, ask
from .questions import HTTP, MQTT, MQTT_AGAIN, SILENCE, TLS, Question, over_tls, questions_for

if TYPE_CHECKING:
    from collections.abc import Iterable

HELP = "find out whether a server wants, takes or refuses a PROXY header"
EXTRA = None
EXAMPLES = """\
proxyproto-rs probe 10.0.0.20:1883
proxyproto-rs probe 10.0.0.20:8443 --tls --http
proxyproto-rs probe unix:/run/app.sock --http
proxyproto-rs probe localhost:8000 --v2 --source 192.0.2.1:51000 --tlv authority=shop.example
"""

_MISTAKE = 2
_PATIENCE = 3.0
_ON_A_UNIX_SOCKET = ("127.0.0.1", 51000), ("127.0.0.1", 443)
"""Whom a header names there without `--source`: the machine itself, on ports that a proxy may have."""

TLV_NAMES = {"alpn": 0x01, "authority": 0x02, "unique-id": 0x05, "netns": 0x30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument(
        "target", metavar="HOST:PORT", type=_target, help="or the path of a UNIX socket: unix:/run/app.sock"
    )
    variants = parser.add_argument_group("what to send first; by default all three, which are compared")
    for option, variant, text in (
        ("--none", v.NONE, "no header"),
        ("--v1", v.V1, "a header of version 1"),
        ("--v2", v.V2, "a header of version 2"),
    ):
        variants.add_argument(option, dest="variants", action="append_const", const=variant, help=text)
    variants.add_argument("--all", action="store_true", help="all three")
    header = parser.add_argument_group("what the header says")
    header.add_argument(
        "--source", metavar="ADDRESS[:PORT]", type=_source, help="the client; by default this machine"
    )
    header.add_argument(
        "--tlv",
        metavar="TYPE=VALUE",
        action="append",
        default=[],
        type=_tlv,
        help=f"a TLV of version 2: a number or {', '.join(TLV_NAMES)}; the value as text, or as hex behind hex:",
    )
    asked = parser.add_argument_group("what to ask behind it; by default what is usual on the port")
    asked.add_argument("--tls", action="store_true", help="TLS; with --mqtt or --http, these in TLS")
    which = asked.add_mutually_exclusive_group()
    which.add_argument(
        "--mqtt", dest="question", action="store_const", const=MQTT, help="MQTT, without a login"
    )
    which.add_argument("--http", dest="question", action="store_const", const=HTTP, help="GET / of HTTP")
    which.add_argument(
        "--silent",
        dest="question",
        action="store_const",
        const=SILENCE,
        help="nothing: the server speaks first",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_PATIENCE,
        help=f"how long to wait for each answer (default: {_PATIENCE:g})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Probe the server; the status tells the verdict."""
    colours = Colours(sys.stdout)
    target: Target = arguments.target
    variants = [] if arguments.all else list(dict.fromkeys(arguments.variants or ()))
    probe = Probe(target, arguments.source, arguments.tlv, arguments.timeout)
    try:
        for question in _questions(arguments, target.port):
            print(f"{printable(str(target))}, asked with {question.words}")
            seen = probe.see(question, variants)
            for variant, one in seen.items():
                paint = colours.good if one.is_answered else colours.bad
                print(f"  {v.WORDS[variant]:<11} {paint(one.ending)}: {one.words}")
            found = _judge(seen, variants)
            print()
            if found.status != v.UNCLEAR.status:
                break
    except UnicodeError:
        sys.stderr.write(f"proxyproto-rs probe: {ascii(target.host)[:80]} is no name of a host\n")
        return _MISTAKE
    except ValueError as wrong:
        sys.stderr.write(f"proxyproto-rs probe: no such header can be sent: {wrong}\n")
        return _MISTAKE
    except OSError as wrong:
        found = v.UNREACHABLE
        print(f"  {printable(wrong.strerror or str(wrong))}\n")
    print(f"{colours.bold(found.name)}: {found.meaning}")
    print(f"  {found.remedy}")
    return found.status


def _questions(arguments: argparse.Namespace, port: int) -> Iterable[Question]:
    question = arguments.question
    if arguments.tls:
        return (TLS if question is None or question is SILENCE else over_tls(question),)
    if question is MQTT:
        return (MQTT, MQTT_AGAIN)
    if question is not None:
        return (question,)
    usual = questions_for(port)
    return (*usual, MQTT_AGAIN) if MQTT in usual else usual


def _judge(seen: dict[str, Observation], variants: list[str]) -> v.Verdict:
    if not variants:
        return v.judge(seen)
    if set(variants) == {v.NONE, v.V1, v.V2}:
        return v.judge(seen)
    return v.ANSWERS if all(one.is_answered for one in seen.values()) else v.NO_ANSWER


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens: a host and a port, or the path of a UNIX socket with port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else f"unix:{self.host}"

    def connect(self, timeout: float) -> socket.socket:
        """Connect within `timeout` seconds. Raises OSError."""
        if self.port:
            return socket.create_connection((self.host, self.port), timeout)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout)
            sock.connect(self.host)
        except BaseException:
            sock.close()
            raise
        return sock


class Probe:
    """A server, and what the headers to it say."""

    def __init__(
        self,
        target: Target,
        source: tuple[str, int | None] | None,
        tlvs: list[tuple[int, bytes]],
        timeout: float,
    ) -> None:
        self._target, self._source, self._tlvs, self._timeout = target, source, tlvs, timeout

    def see(self, question: Question, variants: list[str]) -> dict[str, Observation]:
        """Ask once for each variant, one after the other. Without variants ask for all that a verdict needs.

        Raises:
            OSError: There is no connection.
            ValueError: No such header can be sent.
        """
        seen = {variant: self._ask(question, variant) for variant in variants or (v.NONE, v.V1, v.V2)}
        if question.waits_for_more:
            seen = v.compare_greetings(seen)
        if v.NONE in seen and seen[v.NONE].is_answered and len(seen) > 2:  # noqa: PLR2004 - all three
            for version in v.takes(seen):
                broken = v.BROKEN[version]
                seen[broken] = self._ask(question, broken)
            if question.waits_for_more:
                seen = v.compare_greetings(seen)
        return seen

    def _ask(self, question: Question, variant: str) -> Observation:
        # A request of HTTP and of TLS names a host, and a UNIX socket has none.
        host = self._target.host if self._target.port else "localhost"
        with self._target.connect(self._timeout) as sock:
            return ask(sock, self._opening(variant, sock), question, host, self._timeout)

    def _opening(self, variant: str, sock: socket.socket) -> bytes:
        if variant == v.NONE:
            return b""
        if variant == v.BROKEN_V1:
            return b"PROXY TCP4 999.0.2.1 198.51.100.1 51000 443\r\n"
        if variant == v.BROKEN_V2:
            return Header.local().encode()[:12] + b"\x2f\x11\x00\x0c" + bytes(12)  # no such command (R22)
        source, destination = self._ends(sock)
        if variant == v.V1:
            return Header.v1(source, destination).encode()
        return Header.v2(source, destination, tlvs=self._tlvs).encode()

    def _ends(self, sock: socket.socket) -> tuple[Any, Any]:
        """Return the source and the destination that the header names."""
        if self._target.port:
            own, peer = sock.getsockname()[:2], sock.getpeername()[:2]
        else:
            own, peer = _ON_A_UNIX_SOCKET
        if self._source is None:
            return own, peer
        address, port = self._source
        # Both ends are of one family (R13). The other family's examples stand for an address that we do not have.
        if (":" in address) != (":" in peer[0]):
            peer = ("2001:db8::1" if ":" in address else "198.51.100.1", peer[1])
        return (address, own[1] if port is None else port), peer


def _target(text: str) -> Target:
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        return Target(path, 0)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _is_port(port) or not int(port):
        raise argparse.ArgumentTypeError("it must be HOST:PORT, [IPv6]:PORT, or unix:/PATH")
    return Target(host.removeprefix("[").removesuffix("]"), int(port))


def _source(text: str) -> tuple[str, int | None]:
    host, _, port = text.rpartition(":")
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))), None
    except ValueError:
        pass
    try:
        address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise argparse.ArgumentTypeError("it must be an IP address, or ADDRESS:PORT") from None
    if not _is_port(port):
        raise argparse.ArgumentTypeError("its port must be 0 to 65535")
    return address, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 0xFFFF  # noqa: PLR2004


def _tlv(text: str) -> tuple[int, bytes]:
    kind, equals, value = text.partition("=")
    try:
        number = TLV_NAMES[kind] if kind in TLV_NAMES else int(kind, 0)
        data = bytes.fromhex(value.removeprefix("hex:")) if value.startswith("hex:") else value.encode()
    except ValueError:
        number, data = -1, b""
    if not equals or not 0 <= number <= 0xFF:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(
            "it must be TYPE=VALUE, such as authority=shop.example or 0xe1=hex:00ff"
        )
    return number, data


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:  # noqa: PLR2004
        raise argparse.ArgumentTypeError("it must be above 0, and at most 3600")
    return seconds
