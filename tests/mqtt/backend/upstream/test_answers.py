"""Every answer to a client, byte by byte in each version, and what is written down of it: row, log line and audit line."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from argon2 import PasswordHasher

from mqtt.peers import CLIENT, OTHER, WELCOME, Broker, connect_of, dial, packet, running, text
from proxyproto_rs.mqtt import BlockedClient

from .scripted import behind, scripted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = ("MQTT_3_1", "MQTT_3_1_1")
VERSIONS = (*OLD, "MQTT_5")
LEVELS = {"MQTT_3_1": "3.1", "MQTT_3_1_1": "3.1.1", "MQTT_5": "5"}


def connack_of(version: str, code: int | None) -> bytes:
    """What refuses a client with this code."""
    if code is None:
        return b""
    return bytes((0x20, 3, 0, code, 0)) if version == "MQTT_5" else bytes((0x20, 2, 0, code))


@dataclass(frozen=True)
class Refusal:
    """A client that we refuse. `old` and `new` are the codes in 3 and in 5; None: closed without a word."""

    reason: str
    old: int | None
    new: int | None
    detail: str
    sections: Callable[[str, Path], dict[str, Any]] = lambda version, path: {}
    first: Callable[[str], bytes] = connect_of
    has_connect: bool = True
    """The CONNECT is valid, so that its version and names are known."""
    prepare: Callable[[Broker], Any] | None = None
    client_id: str = "dev"


def users(_: str, directory: Path) -> dict[str, Any]:
    file = directory / "users.txt"
    file.write_text(f"user:{PasswordHasher(1, 8, 1).hash('another')}\n")
    return {"auth": [{"file": str(file)}]}


def only_others(version: str, _: Path) -> dict[str, Any]:
    return {"versions": [level for name, level in LEVELS.items() if name != version]}


def with_a_byte_too_many(version: str) -> bytes:
    return packet(0x10, connect_of(version)[2:] + b"x")


def without_id(version: str) -> bytes:
    """No id, and no clean session."""
    name, level = ("MQIsdp", 3) if version == "MQTT_3_1" else ("MQTT", 4)
    return packet(0x10, text(name) + bytes((level, 0, 0, 60)) + text(""))


async def block(broker: Broker) -> None:
    await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="dev"))


REFUSALS = [
    Refusal("bad-credentials", 5, 0x86, "user name or password is wrong", users),
    Refusal("blocked", 5, 0x8A, "by CLIENT_ID dev", prepare=block),
    Refusal(
        "access-denied",
        5,
        0x87,
        "by access[0]",
        lambda *_: {"access": [{"clients": ["dev"], "action": "deny"}]},
    ),
    Refusal(
        "cert-required",
        5,
        0x87,
        "",
        lambda *_: {"identity": {"source": "header", "use_as": "username"}},
    ),
    Refusal("auth-error", 3, 0x88, "", lambda *_: {"auth": [{"plugin": "json:loads"}]}),
    Refusal("upstream-unavailable", 3, 0x88, "{server}: Connection refused (os error 111)"),
    Refusal("protocol-version", 1, 0x84, "", only_others, has_connect=False),
    Refusal("malformed-connect", None, 0x81, "", first=with_a_byte_too_many, has_connect=False, client_id=""),
    Refusal(
        "packet-too-large",
        None,
        0x95,
        "",
        lambda *_: {"mqtt": {"max_connect_size": 100}},
        first=lambda version: connect_of(version, password=b"x" * 200),
        has_connect=False,
        client_id="",
    ),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", REFUSALS, ids=[case.reason for case in REFUSALS])
async def test_a_refusal_is_answered_and_written_down(
    case: Refusal, version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    sections = case.sections(version, tmp_path)
    versions = {key: sections.pop(key) for key in ("versions",) if key in sections}
    audit = tmp_path / "audit.log"
    code = case.new if version == "MQTT_5" else case.old
    async with running(**behind(nobody, **versions), **sections, audit={"file": str(audit)}) as broker:
        if case.prepare is not None:
            await case.prepare(broker)
        async with dial(broker.address(), case.first(version)) as client:
            assert await client.end() == connack_of(version, code)
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.client_id) == (case.reason, CLIENT[0], case.client_id)
        if case.detail:
            assert row.reason == case.detail.format(server=nobody)
        assert row.username == ("user" if case.has_connect else None)
        assert row.password_provided is case.has_connect
        assert broker.service.metrics.connects == {("tcp", case.reason): 1}
        (line,) = (line for line in caplog.messages if line.startswith("refused "))
        upstream = nobody if case.reason == "upstream-unavailable" else None
        assert line.startswith(f"refused client={CLIENT[0]}:{CLIENT[1]} reason={case.reason} listener=tcp ")
        assert (f" upstream={upstream} " in line) == (upstream is not None)
        assert line.endswith(f" detail={json.dumps(row.reason)}")
    (told,) = lines_of(audit, "client.refused")
    assert (told["reason"], told["detail"], told["clientId"]) == (case.reason, row.reason, case.client_id)
    assert told["mqttVersion"] == (version if case.has_connect else None)
    assert told["upstream"] == upstream


def lines_of(audit: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(("version", "code"), [("MQTT_3_1", None), ("MQTT_3_1_1", 2)], ids=["3.1", "3.1.1"])
async def test_an_identifier_that_is_not_served(version: str, code: int | None) -> None:
    """In 5 every id is served, so 0x85 is never sent by ourselves."""
    async with running(**behind("127.0.0.1:1")) as broker:
        async with dial(broker.address(), without_id(version)) as client:
            assert await client.end() == connack_of(version, 2)
        (row,) = await broker.rows()
        assert (row.reason_code, row.client_id) == ("identifier-rejected", "")


@pytest.mark.parametrize("version", VERSIONS)
async def test_too_many_sessions_are_audited_and_leave_no_row(version: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with (
        scripted() as server,
        running(**behind(server.address), limits={"max_sessions": 1}, audit={"file": str(audit)}) as broker,
        dial(broker.address(), connect_of(version, "first")) as first,
    ):
        peer = await server.accept()
        peer.send(WELCOME if version != "MQTT_5" else b"\x20\x03\0\0\0")
        assert (await first.packet())[3] == 0
        async with dial(broker.address(), connect_of(version)) as client:
            assert await client.end() == connack_of(version, 0x97 if version == "MQTT_5" else 3)
        await broker.until(lambda: broker.service.metrics.connects["tcp", "too-many-sessions"] == 1)
        assert await broker.rows(0) == []
    (told,) = lines_of(audit, "client.refused")
    assert (told["reason"], told["mqttVersion"]) == ("too-many-sessions", version)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_comes_too_often_is_closed_before_its_connect_is_read(version: str) -> None:
    rate = {"tcp": {"proxy": {"max_rate_per_client": 1}}}
    async with scripted() as server, running(**behind(server.address), listeners=rate) as broker:
        async with dial(broker.address(), connect_of(version)) as first:
            (await server.accept()).send(WELCOME if version != "MQTT_5" else b"\x20\x03\0\0\0")
            assert (await first.packet())[3] == 0
            async with dial(broker.address(), connect_of(version)) as client:
                assert await client.end() == b""
        await broker.until(lambda: broker.service.stats()["tcp"]["rate-limited"] == 1)
        assert await broker.rows(0) == []


@dataclass(frozen=True)
class Ending:
    """How a session is ended by us, and the code that a client of 5 gets."""

    reason: str
    code: int
    end: Callable[[Broker, Any, Any, str], Any]
    sections: dict[str, Any] = field(default_factory=dict)
    keep_alive: int = 60


def sends(*what: Callable[[str], bytes]) -> Callable[[Broker, Any, Any, str], Any]:
    async def send(broker: Broker, client: Any, server: Any, version: str) -> None:
        client.send(*(make(version) for make in what))

    return send


def is_told(reason: str) -> Callable[[Broker, Any, Any, str], Any]:
    async def tell(broker: Broker, client: Any, server: Any, version: str) -> None:
        session = broker.service.sessions.client("dev")
        assert session is not None
        session.end(reason)

    return tell


async def by_an_operator(broker: Broker, client: Any, server: Any, version: str) -> None:
    assert await broker.service.sessions.disconnect("dev")


async def by_a_block(broker: Broker, client: Any, server: Any, version: str) -> None:
    await block(broker)


async def by_silence(broker: Broker, client: Any, server: Any, version: str) -> None:
    """The server does not care, and speaks itself."""
    server.send(large(version))
    assert await client.packet() == large(version)


async def by_a_large_packet_of_the_server(broker: Broker, client: Any, server: Any, version: str) -> None:
    server.send(large(version))


async def by_a_stop(broker: Broker, client: Any, server: Any, version: str) -> None:
    await broker.service.stop()


def large(version: str) -> bytes:
    return packet(0x30, text("t") + (b"\0" if version == "MQTT_5" else b"") + bytes(2000))


def wrong_flags(_: str) -> bytes:
    return b"\x90\x03\0\x01\0"


SMALL = {"mqtt": {"max_packet_size": 1000, "max_connect_size": 1000}}

ENDINGS = [
    Ending("administrative", 0x98, by_an_operator),
    Ending("blocked", 0x98, by_a_block),
    Ending("keep-alive", 0x8D, by_silence, keep_alive=1),
    Ending("second-connect", 0x82, sends(connect_of)),
    Ending("malformed-packet", 0x81, sends(wrong_flags)),
    Ending("packet-too-large", 0x95, sends(large), SMALL),
    Ending("packet-too-large", 0x95, by_a_large_packet_of_the_server, SMALL),
    Ending("server-shutdown", 0x8B, by_a_stop),
    # These have no cause of ours behind a server, and an answer all the same.
    Ending("bad-topic", 0x90, is_told("bad-topic")),
    Ending("rate-limited", 0x96, is_told("rate-limited")),
    Ending("taken-over", 0x8E, is_told("taken-over")),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", ENDINGS, ids=[f"{case.reason}-{at}" for at, case in enumerate(ENDINGS)])
async def test_a_session_that_we_end_is_told_why_and_its_server_is_not(
    case: Ending, version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    audit = tmp_path / "audit.log"
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(scripted())
        sections = {**behind(server.address), **case.sections, "audit": {"file": str(audit)}}
        broker = await stack.enter_async_context(running(**sections))
        first = connect_of(version, keep_alive=case.keep_alive)
        client = await stack.enter_async_context(dial(broker.address(), first))
        upstream = await server.accept()
        assert upstream.first == first
        upstream.send(b"\x20\x03\0\0\0" if version == "MQTT_5" else WELCOME)
        assert (await client.packet())[3] == 0
        await broker.until(lambda: broker.service.sessions.connected == 1)
        await case.end(broker, client, upstream, version)
        assert await client.end() == (bytes((0xE0, 1, case.code)) if version == "MQTT_5" else b"")
        assert await upstream.end() == b"", "a DISCONNECT would keep the will back"
        await broker.until(lambda: broker.service.metrics.disconnects == {("tcp", case.reason): 1})
        (line,) = (line for line in caplog.messages if line.startswith("disconnected "))
        assert f" reason={case.reason} " in line
        assert f" upstream={server.address} " in line
        assert await broker.rows(0) == [] if case.reason != "server-shutdown" else True
    (told,) = lines_of(audit, "client.disconnected")
    assert (told["reason"], told["upstream"]) == (case.reason, server.address)


@dataclass(frozen=True)
class Answer:
    """What a server answers, and what becomes of it."""

    version: str
    code: int
    reason: str
    properties: bytes = b""
    words: str = ""
    """What is told of its code and its Reason String."""

    @property
    def packet(self) -> bytes:
        if self.version != "MQTT_5":
            return bytes((0x20, 2, 0, self.code))
        return packet(0x20, bytes((0, self.code, len(self.properties))) + self.properties)


WORDS = b"\x1f\0\x07go away"
ELSEWHERE = b"\x1c\0\x0bother:1883 "

ANSWERS = [
    *(
        Answer(version, code, reason)
        for version in OLD
        for code, reason in [
            (1, "upstream-refused"),
            (2, "upstream-refused"),
            (3, "upstream-unavailable"),
            (4, "bad-credentials"),
            (5, "bad-credentials"),
        ]
    ),
    *(
        Answer("MQTT_5", code, reason, WORDS, "go away")
        for code, reason in [
            (0x80, "upstream-refused"),
            (0x81, "upstream-refused"),
            (0x82, "upstream-refused"),
            (0x83, "upstream-refused"),
            (0x84, "upstream-refused"),
            (0x85, "upstream-refused"),
            (0x86, "bad-credentials"),
            (0x87, "bad-credentials"),
            (0x88, "upstream-unavailable"),
            (0x89, "upstream-unavailable"),
            (0x8A, "upstream-refused"),
            (0x8C, "bad-credentials"),
            (0x90, "upstream-refused"),
            (0x95, "upstream-refused"),
            (0x97, "upstream-refused"),
            (0x99, "upstream-refused"),
            (0x9A, "upstream-refused"),
            (0x9B, "upstream-refused"),
            (0x9F, "upstream-refused"),
        ]
    ),
    Answer("MQTT_5", 0x86, "bad-credentials"),
    Answer("MQTT_5", 0x9C, "upstream-unavailable", ELSEWHERE),
    Answer("MQTT_5", 0x9D, "upstream-unavailable", ELSEWHERE + WORDS, "go away"),
]


@pytest.mark.parametrize("case", ANSWERS, ids=[f"{case.version}-{case.code:#x}" for case in ANSWERS])
async def test_what_a_server_answers_is_passed_on_and_written_down(
    case: Answer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = tmp_path / "audit.log"
    sections = {
        "auto_block": {"enabled": True, "max_failures": 1, "window": 60, "block_for": 60},
        "audit": {"file": str(audit)},
    }
    async with scripted() as server, running(**behind(server.address), **sections) as broker:
        async with dial(broker.address(), connect_of(case.version)) as client:
            (await server.accept()).send(case.packet)
            assert await client.end() == case.packet
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address) == (case.reason, CLIENT[0])
        assert case.words in row.reason
        assert row.reason.endswith(f" (code {case.code:#04x})")
        (line,) = (line for line in caplog.messages if line.startswith("refused "))
        assert f" upstream={server.address} " in line
        assert line.endswith(f" detail={json.dumps(row.reason)}")
        # Another's wrong password comes after it, so once that is a block, this one is or will never be.
        async with dial(broker.address(), connect_of("MQTT_3_1_1"), source=OTHER) as client:
            (await server.accept()).send(b"\x20\x02\0\x05")
            await client.end()
        counts = case.reason == "bad-credentials"
        await broker.until(lambda: sum(broker.service.blocked.count_by_type().values()) == 1 + counts)
        assert (broker.service.blocked.covers("dev", None, CLIENT[0]) is not None) == counts
    told = lines_of(audit, "client.refused")[0]
    assert (told["reason"], told["detail"], told["upstream"]) == (case.reason, row.reason, server.address)
    assert told["mqttVersion"] == case.version


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0x8B, "upstream-closed"), (0x8E, "taken-over"), (0x97, "upstream-closed"), (0x9D, "upstream-closed")],
)
async def test_what_a_server_ends_a_session_with_is_passed_on_and_written_down(
    code: int, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    audit = tmp_path / "audit.log"
    goodbye = packet(0xE0, bytes((code, len(WORDS))) + WORDS)
    async with scripted() as server, running(**behind(server.address), audit={"file": str(audit)}) as broker:
        async with dial(broker.address(), connect_of("MQTT_5")) as client:
            upstream = await server.accept()
            upstream.send(b"\x20\x03\0\0\0")
            assert (await client.packet())[3] == 0
            upstream.send(goodbye)
            assert await client.end() == goodbye
            upstream.writer.close()
        await broker.until(lambda: broker.service.metrics.disconnects == {("tcp", reason): 1})
        (line,) = (line for line in caplog.messages if line.startswith("disconnected "))
        assert f" reason={reason} " in line
        assert line.endswith(f' upstream={server.address} id="dev"')
    (told,) = lines_of(audit, "client.disconnected")
    assert (told["reason"], told["detail"]) == (reason, f"go away (code {code:#04x})")
