"""What amqtt does wrong alone, and does right behind the gate. Both are seen from outside.

Every test also runs on amqtt alone, and must fail there. If it passes there, upstream has mended the fault, and a piece of
the gate can go. The numbers are those of the list in docs/mqtt.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import peers
from .peers import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    connack,
    connect,
    packet,
    publish,
    subscribe,
    text,
    will,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.login import Connect

    from .peers import Client

TESTS = Path(__file__).parent.parent
CONFIG = {"mqtt": {"connect_timeout": "500ms", "keepalive_factor": 1}}
PATIENCE = {
    "gate": 10.0,
    "plain": 1.0,
}  # seconds; an answer comes at once, so this is how long the test waits for one that must not come
MIB = 1 << 20


class Site:
    """A broker's process, ours or amqtt's alone, and what can be seen of it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [sys.executable, "-m", "mqtt.child", kind, json.dumps(CONFIG)]
            path = os.pathsep.join([str(TESTS), *sys.path])
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env={**os.environ, "PYTHONPATH": path}
            )
        self.address = ("127.0.0.1", self.line("port"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def line(self, key: str, number: int = 0) -> Any:
        """The line of that number on its standard output that has the key, as soon as it is there."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            lines = [json.loads(line) for line in self._out.read_text().splitlines() if line.endswith("}")]
            found = [line for line in lines if key in line]
            if len(found) > number:
                return found[number] if key == "client_id" else found[number][key]
            time.sleep(0.01)
        raise AssertionError(f"no line with {key!r}: {self._err.read_text()}")

    def logins(self) -> int:
        return self._out.read_text().count('"client_id"')

    def complaints(self) -> str:
        return self._err.read_text()

    def amqtt_sessions(self) -> dict[str, str]:
        """Client id and state, as amqtt's own table has them."""
        before = self._out.read_text().count('"sessions"')
        self.process.send_signal(signal.SIGUSR1)
        sessions: dict[str, str] = self.line("sessions", before)
        return sessions

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    def sockets(self) -> int:
        folder, count = f"/proc/{self.process.pid}/fd", 0
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(f"{folder}/{fd}").startswith("socket:")
        return count

    @contextlib.asynccontextmanager
    async def log_in(self, how: Connect | bytes, source: Address = peers.CLIENT) -> AsyncIterator[Client]:
        first = how if isinstance(how, bytes) else how.encode()
        async with self.dial(first, source) as client:
            client.connack = await self.soon(client.packet())
            yield client

    def dial(self, first: bytes = b"", source: Address = peers.CLIENT) -> Any:
        return peers.dial(self.address, first, source=source if self.kind == "gate" else None)

    async def soon(self, coming: Any) -> Any:
        return await asyncio.wait_for(coming, PATIENCE[self.kind])

    async def until(self, condition: Callable[[], bool]) -> None:
        async def true() -> None:
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        await self.soon(true())


KINDS = ["gate", pytest.param("plain", marks=pytest.mark.xfail(strict=True, reason="amqtt alone"))]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """One process of each kind for all tests that leave it usable."""
    started = {kind: Site(kind, tmp_path_factory.mktemp(kind)) for kind in ("gate", "plain")}
    yield started
    for site in started.values():
        site.close()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture(params=KINDS)
def own_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """For tests that fill its memory."""
    site = Site(request.param, tmp_path)
    yield site
    site.close()


def stranger(client_id: str, **changes: Any) -> Connect:
    return connect(client_id, password=b"guessed", **changes)


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "kept"])
async def test_9_1_a_wrong_password_changes_nothing_for_the_client_with_that_id(
    site: Site, clean: bool
) -> None:
    name = f"victim-{clean}"
    async with site.log_in(connect(name, clean_session=False)) as victim:
        await site.soon(victim.ask(subscribe(name, qos=1)))
        async with site.log_in(stranger(name, clean_session=clean), peers.OTHER) as refused:
            assert refused.connack == connack(5)
        async with site.log_in(connect(f"friend-{clean}")) as friend:
            friend.send(publish(name, b"still here", 1))
            assert (await site.soon(victim.message())).payload == b"still here"
        assert await site.soon(victim.ask(PINGREQ)) == PINGRESP


async def test_9_1_a_stranger_is_not_listed_as_connected(site: Site) -> None:
    for number in range(3):
        async with site.log_in(stranger(f"ghost-{number}")) as refused:
            assert refused.connack == connack(5)
    assert not [name for name in site.amqtt_sessions() if name.startswith("ghost")]


async def test_9_2_a_client_that_comes_back_before_its_old_connection_ends_gets_messages(site: Site) -> None:
    how = connect("back", clean_session=False)
    async with site.log_in(how) as old, site.log_in(connect("back-friend")) as friend:
        await site.soon(old.ask(subscribe("back", qos=1)))
        async with site.log_in(how, peers.OTHER) as new:
            assert new.connack == WELCOME_BACK
            friend.send(publish("back", b"1", 1))
            assert (await site.soon(new.message())).payload == b"1"


async def test_9_3_of_thirty_with_one_id_one_is_left(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        logins = [stack.enter_async_context(site.log_in(connect("thirty"))) for _ in range(30)]
        clients = await asyncio.gather(*logins)
        for client in clients:
            client.send(PINGREQ)
        answers = [await site.soon(client.packet()) for client in clients]
        assert answers.count(PINGRESP) == 1


async def test_9_4_keep_alive_ends_a_silent_client_and_its_will_is_sent(site: Site) -> None:
    async with site.log_in(connect("heir")) as heir:
        await site.soon(heir.ask(subscribe("wills")))
        async with site.log_in(connect("silent", keep_alive=1, will=will())) as silent:
            assert await site.soon(silent.packet()) == b""
            assert (await site.soon(heir.message())).payload == b"gone"


FIRST = [
    ("nothing", b""),
    ("half", connect().encode()[:-1]),
    ("http", b"GET / HTTP/1.1\r\n\r\n"),
    ("proxy", b"PROXY TCP4 "),
]


@pytest.mark.parametrize("sent", [row[1] for row in FIRST], ids=[row[0] for row in FIRST])
async def test_9_5_a_client_that_sends_no_connect_is_closed(site: Site, sent: bytes) -> None:
    async with site.dial(sent) as client:
        assert await site.soon(client.end()) == b""


@pytest.mark.parametrize("topic", ["a/#", "$SYS/x"])
async def test_9_6_an_invalid_topic_ends_the_connection(site: Site, topic: str) -> None:
    async with site.log_in(connect("bad-topic")) as client:
        client.send(publish(topic, b"x"))
        assert await site.soon(client.end()) == b""


async def test_9_7_a_huge_packet_is_not_read(own_site: Site) -> None:
    async with own_site.log_in(connect("huge")) as client:
        before = own_site.memory()
        with contextlib.suppress(ConnectionError):
            client.send(b"\x30\xff\xff\xff\x7f" + bytes(40 * MIB))
            await asyncio.wait_for(client.writer.drain(), 5)
            assert await own_site.soon(client.packet()) == b""
        assert own_site.memory() - before < 20 * MIB


async def test_9_8_a_subscriber_that_does_not_read_fills_no_memory(own_site: Site) -> None:
    async with own_site.log_in(connect("deaf")) as deaf, own_site.log_in(connect("loud")) as loud:
        await own_site.soon(deaf.ask(subscribe("flood")))
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = own_site.memory()
        for _ in range(40):
            loud.send(*[publish("flood", bytes(32_000)) for _ in range(60)])
            assert await asyncio.wait_for(loud.ask(PINGREQ), 10) == PINGRESP
        assert own_site.memory() - before < 30 * MIB


async def test_9_9_a_packet_shorter_than_its_parts_swallows_nothing(site: Site) -> None:
    async with site.log_in(connect("short")) as client:
        client.send(packet(0x82, b"\x00\x01\x00\x05ab") + PINGREQ * 4)
        assert await site.soon(client.end()) == b""


async def test_9_9_a_client_id_that_is_not_utf_8_is_refused(site: Site) -> None:
    raw = packet(0x10, b"\x00\x04MQTT\x04\xc2\x00\x3c" + text(b"\xff\xfe") + text("user") + text("right"))
    async with site.dial(raw) as client:
        assert await site.soon(client.end()) == b""


async def test_9_10_a_plugin_that_fails_is_answered(site: Site) -> None:
    async with site.log_in(connect("boom", username="boom")) as client:
        assert client.connack == connack(3)
    assert "Unhandled exception" not in site.complaints()


async def test_9_11_mqtt_3_1_is_told_so(site: Site) -> None:
    async with site.log_in(packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3c" + text("old"))) as client:
        assert client.connack == connack(1)
        assert await site.soon(client.end()) == b""


async def test_9_12_a_client_that_goes_too_early_leaves_no_socket(site: Site) -> None:
    before = site.sockets()
    # More than earlier tests may have left, whose end would be taken for the end of these.
    for _ in range(200):
        async with site.dial(b"\x10\x20\x00"):
            pass
    async with site.log_in(connect("after")) as client:
        assert client.connack == WELCOME
    await site.until(lambda: site.sockets() <= before)


async def test_9_13_a_resumed_session_has_the_new_address_and_will(site: Site) -> None:
    def how(retain: bool) -> Connect:
        return connect("resumed", clean_session=False, will=will(retain=retain))

    reported = site.logins()
    async with site.log_in(how(False)) as client:
        client.send(DISCONNECT)
        await site.soon(client.end())
    async with site.log_in(how(True), peers.OTHER) as client:
        own: Address = peers.OTHER if site.kind == "gate" else client.writer.get_extra_info("sockname")
        report = site.line("client_id", reported + 1)
        assert (report["address"], report["port"], report["will_retain"]) == (*own, True)


async def test_9_14_no_session_stays_connected_when_its_connection_is_over(site: Site) -> None:
    async with site.log_in(connect("stays", clean_session=False)) as client:
        client.send(publish("$SYS/x", b"x"))
        await asyncio.wait([asyncio.ensure_future(client.packet())], timeout=0.5)
    await site.until(lambda: site.amqtt_sessions().get("stays") == "disconnected")


async def test_9_15_a_will_needs_the_right_to_publish(site: Site) -> None:
    async with site.log_in(connect("willing", will=will("secret/x"))) as client:
        assert client.connack == connack(5)


async def test_9_16_another_user_does_not_get_the_session(site: Site) -> None:
    async with site.log_in(connect("mine", clean_session=False)) as client:
        client.send(DISCONNECT)
        await site.soon(client.end())
    async with site.log_in(connect("mine", username="other", clean_session=False)) as client:
        assert client.connack == connack(5)


async def test_9_17_retained_messages_go_to_their_subscribers_only(site: Site) -> None:
    async with site.log_in(connect("chief", username="chief")) as chief:
        await site.soon(chief.ask(subscribe("secret/retained")))
        chief.send(publish("secret/retained", b"x", retain=True))
        assert (await site.soon(chief.message())).payload == b"x"
        async with site.log_in(connect("nosy")) as nosy:
            assert nosy.connack == WELCOME
            assert await site.soon(nosy.ask(PINGREQ)) == PINGRESP
        chief.send(publish("secret/retained", b"", retain=True))


async def test_9_18_nothing_is_lost_while_others_subscribe(site: Site) -> None:
    async with (
        site.log_in(connect("listener")) as listener,
        site.log_in(connect("speaker")) as speaker,
        site.log_in(connect("restless")) as restless,
    ):
        # These stand in the table before the listener's, so that amqtt waits for a plugin before it gets there.
        await site.soon(restless.ask(subscribe("#", "+", "news/#")))
        await site.soon(listener.ask(subscribe("news", qos=1)))
        restless.send(*[subscribe(f"restless/{n}", packet_id=n + 1) for n in range(600)])
        speaker.send(*[publish("news", str(n).encode(), 1, n + 1) for n in range(300)])
        received = {(await site.soon(listener.message())).payload for _ in range(300)}
        assert received == {str(n).encode() for n in range(300)}


CLOSES = [
    ("qos-3", publish("a", b"", 3)),
    ("flags", bytes((0x80,)) + subscribe("a")[1:]),
    ("no-topic", packet(0x82, b"\x00\x01")),
    ("topic-not-utf-8", packet(0x30, text(b"\xff"))),
    ("ping-with-body", packet(0xC0, b"x")),
    ("server-only", packet(0xD0, b"")),
]


@pytest.mark.parametrize("sent", [row[1] for row in CLOSES], ids=[row[0] for row in CLOSES])
async def test_9_19_a_packet_that_mqtt_forbids_ends_the_connection(site: Site, sent: bytes) -> None:
    async with site.log_in(connect("closing")) as client:
        client.send(sent)
        assert await site.soon(client.end()) == b""


async def test_9_20_a_fast_publisher_fills_no_memory(own_site: Site) -> None:
    async with (
        own_site.log_in(connect("many")) as many,
        own_site.log_in(connect("fast", keep_alive=0)) as fast,
    ):
        # Each message is compared with each of these, which makes the broker slower than its publisher.
        for start in range(0, 4000, 200):
            await own_site.soon(many.ask(subscribe(*[f"filters/+/{n}" for n in range(start, start + 200)])))
        before = own_site.memory()
        fast.send(*[publish("fast", bytes(30_000)) for _ in range(2500)])
        try:
            for _ in range(300):  # turns of the broker's loop, in which it goes on reading
                assert await asyncio.wait_for(many.ask(PINGREQ), 10) == PINGRESP
                assert own_site.memory() - before < 30 * MIB
        finally:
            fast.writer.transport.abort()
