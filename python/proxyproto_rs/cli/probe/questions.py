"""What a probe asks a server behind the header, and how it knows that the server understood.

No question logs anybody in. The one to MQTT asks for a version of MQTT that nobody serves: the answer is a CONNACK that
refuses it, before any password is looked at. Servers that do not answer it are asked again by a CONNECT without a name,
with a session that ends with the connection, and get a DISCONNECT at once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..colours import shown

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, judged."""

    is_understood: bool
    words: str


@dataclass(frozen=True, slots=True)
class Question:
    """A way to see whether a server reads what comes behind the header."""

    words: str
    """What is sent, for people."""
    ask: Callable[[str], bytes]
    """Returns what to send to the host of this name."""
    judge: Callable[[bytes], Answer | None]
    """Judges what has come; None if more must come."""
    goodbye: bytes = b""
    """Sent behind an answer."""
    is_tls: bool = False
    """Whether TLS comes first. That it starts is the answer; what comes back through it is shown too."""
    waits_for_more: bool = False
    """Whether the server speaks first: what it says, and whether it stays, is judged after a while of silence."""


def _mqtt(level: int) -> Callable[[str], bytes]:
    def packet(_host: str) -> bytes:
        client_id = f"proxyproto-rs-{secrets.token_hex(4)}".encode()
        body = b"\x00\x04MQTT" + bytes([level, _CLEAN, 0, 10]) + len(client_id).to_bytes(2, "big") + client_id
        return bytes([0x10, len(body)]) + body

    return packet


_CLEAN = 0x02
_UNSERVED, _MQTT_3_1_1 = 0x63, 4
_CONNACK, _DISCONNECT = 0x20, 0xE0


def _judge_mqtt(data: bytes) -> Answer | None:
    if data[0] == _CONNACK:
        if len(data) < 4:  # noqa: PLR2004 - both bytes of the shortest CONNACK
            return None
        return Answer(True, f"CONNACK {data[3]}")
    if data[0] == _DISCONNECT:
        return Answer(True, "an MQTT DISCONNECT")
    return Answer(False, f"no MQTT: {shown(data, 24)}")


def _http(host: str) -> bytes:
    name = f"[{host}]" if ":" in host else host
    return (
        f"GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: proxyproto-rs-probe\r\nConnection: close\r\n\r\n"
    ).encode("ascii", "backslashreplace")


_NOT_UNDERSTOOD = (b"400", b"405", b"501", b"505")
"""How servers answer a header that they take for a request line."""


def _judge_http(data: bytes) -> Answer | None:
    line = data.partition(b"\r\n")[0]
    if not line.startswith(b"HTTP/1."[: len(line)]):
        return Answer(False, f"no HTTP: {shown(data, 24)}")
    if len(line) < len("HTTP/1.1 200"):
        return None
    return Answer(line[9:12] not in _NOT_UNDERSTOOD, shown(line, 40))


def _judge_greeting(data: bytes) -> Answer | None:
    return Answer(True, f"it says {shown(data, 40)}")


MQTT = Question(
    "an MQTT CONNECT of a version that nobody serves, which is no login", _mqtt(_UNSERVED), _judge_mqtt
)
MQTT_AGAIN = Question(
    "an MQTT CONNECT without a name, and a DISCONNECT",
    _mqtt(_MQTT_3_1_1),
    _judge_mqtt,
    goodbye=bytes([_DISCONNECT, 0]),
)
HTTP = Question("GET / of HTTP", _http, _judge_http)
TLS = Question("a TLS ClientHello", lambda _: b"", lambda _: None, is_tls=True)
SILENCE = Question(
    "silence, as the server should speak first", lambda _: b"", _judge_greeting, waits_for_more=True
)


def over_tls(inner: Question) -> Question:
    """Return the question asked through TLS."""
    return Question(f"TLS, and in it {inner.words}", inner.ask, inner.judge, inner.goodbye, is_tls=True)


_USUAL: dict[int, Question] = {
    **dict.fromkeys((80, 3000, 5000, 8000, 8008, 8080, 8081, 8888, 9000), HTTP),
    1883: MQTT,
    **dict.fromkeys((443, 465, 636, 853, 993, 995, 5671, 6443, 8443, 8883, 9443), TLS),
    **dict.fromkeys((21, 22, 25, 110, 143, 587, 3306), SILENCE),
}


def questions_for(port: int) -> tuple[Question, ...]:
    """Return what to ask on a port, the likeliest first."""
    if port in _USUAL:
        return (_USUAL[port],)
    return (HTTP, MQTT, TLS, SILENCE)
