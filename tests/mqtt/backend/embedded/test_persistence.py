"""What the embedded broker keeps on the disk, seen from outside: a real process, killed, and real clients."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt.peers import CLIENT, DISCONNECT, WELCOME, connect, log_in, running, subscribe
from mqtt.test_cli_broker import Process, run
from proxyproto_rs.mqtt.backend.embedded.persistence import not_writable

from .test_broker import EVERYBODY, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """\
listeners: {{tcp: {{bind: "127.0.0.1:0", proxy_protocol: "off"}}}}
store: "sqlite:{directory}/broker.db"
backend: {{embedded: {{persistence: "{directory}/kept", max_queued: 100000}}}}
auth: anonymous
"""
MESSAGES = 10_000
PUBLISHERS = 8
SESSIONS = 4
WAIT = 60.0  # seconds; a test that waits so long has failed


@contextlib.contextmanager
def broker(directory: Path) -> Iterator[Process]:
    """Run the broker on what is in the directory, until it is killed."""
    (directory / "broker.yaml").write_text(CONFIG.format(directory=directory))
    process = Process(directory, "--config", "broker.yaml")
    try:
        yield process
    finally:
        process.signal(signal.SIGKILL)
        process.wait()


class Client:
    """A client of paho on a thread of its own, and what it has seen."""

    def __init__(self, name: str, version: int = 4, *, clean: bool = False) -> None:
        is_five = version == 5
        self._how: dict[str, Any] = {}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            protocol=paho.MQTTv5 if is_five else paho.MQTTv311,
            clean_session=None if is_five else clean,
        )
        if is_five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0 if clean else 3600
            self._how = {"clean_start": clean, "properties": properties}
        self.changed = threading.Condition()
        self.session_present: bool | None = None
        self.is_gone = False
        self.received: list[tuple[str, str, bool, bool]] = []
        self.acknowledged: dict[int, int] = {}
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.subscribed: list[int] = []
        self.client.on_subscribe = self._on_subscribe

    def connect(self, process: Process) -> Client:
        self.client.connect("127.0.0.1", process.port, **self._how)
        self.client.loop_start()
        self.until(lambda: self.session_present is not None)
        return self

    def until(self, condition: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, WAIT), "nothing came any more"

    def subscribe(self, *filters: str, qos: int = 1) -> None:
        self.client.subscribe([(one, qos) for one in filters])
        self.until(lambda: self.subscribed)

    def subscribe_and_end(self, *filters: str) -> None:
        self.subscribe(*filters)
        self.end()

    def publish(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> int:
        return self.client.publish(topic, text, qos, retain=retain).mid

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, _: Any, __: Any, flags: Any, ___: Any, ____: Any) -> None:
        self._note("session_present", flags.session_present)

    def _on_disconnect(self, *_: Any) -> None:
        self._note("is_gone", True)

    def _on_subscribe(self, _: Any, __: Any, ___: Any, codes: Any, ____: Any) -> None:
        self._note("subscribed", [code.value for code in codes])

    def _note(self, name: str, value: Any) -> None:
        with self.changed:
            setattr(self, name, value)
            self.changed.notify_all()

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        with self.changed:
            self.received.append((message.topic, message.payload.decode(), message.dup, message.retain))
            self.changed.notify_all()

    def _on_publish(self, _: Any, __: Any, mid: int, reason: Any, ___: Any) -> None:
        with self.changed:
            self.acknowledged[mid] = reason.value
            self.changed.notify_all()


@contextlib.contextmanager
def clients(*all_of_them: Client) -> Iterator[None]:
    """End clients when the block is over, however it ends."""
    try:
        yield
    finally:
        for one in all_of_them:
            one.end()


def test_nothing_acknowledged_is_missing_after_a_kill(tmp_path: Path) -> None:
    """10,000 messages of QoS 1 for sessions of clients that are away, with the kill while the last of them come."""
    sessions = [f"lamp-{number}" for number in range(SESSIONS)]
    with broker(tmp_path) as process:
        for number, name in enumerate(sessions):
            Client(name, 4 + number % 2).connect(process).subscribe_and_end(f"to/{name}/#", "news")
        publishers = [Client(f"desk-{number}", clean=True).connect(process) for number in range(PUBLISHERS)]
        sent: list[dict[int, tuple[str, str]]] = []
        with clients(*publishers):
            publishers[0].publish("news", "today", retain=True)
            publishers[0].until(lambda: publishers[0].acknowledged)
            for number, publisher in enumerate(publishers):
                own = {}
                for message in range(number, MESSAGES + 1_000, PUBLISHERS):
                    topic = f"to/{sessions[message % SESSIONS]}/{number}"
                    own[publisher.publish(topic, str(message))] = (topic, str(message))
                sent.append(own)
            for publisher, own in zip(publishers, sent, strict=True):
                publisher.until(lambda own=own, by=publisher: len(by.acknowledged) >= len(own) * 10 // 11)
            process.signal(signal.SIGKILL)
            process.wait()
        acknowledged = {
            own[mid]
            for publisher, own in zip(publishers, sent, strict=True)
            for mid in publisher.acknowledged
            if mid in own
        }
    assert len(acknowledged) >= MESSAGES - PUBLISHERS

    with broker(tmp_path) as process:
        lamps = [Client(name, 4 + number % 2) for number, name in enumerate(sessions)]
        with clients(*lamps):
            for lamp, name in zip(lamps, sessions, strict=True):
                lamp.connect(process)
                assert lamp.session_present
                needed = {one for one in acknowledged if one[0].startswith(f"to/{name}/")}
                lamp.until(lambda lamp=lamp, needed=needed: needed <= {one[:2] for one in lamp.received})
                again = Counter(one[:2] for one in lamp.received if one[0] != "news" and not one[2])
                assert all(count == 1 for count in again.values())
                for number in range(PUBLISHERS):
                    order = [int(one[1]) for one in lamp.received if one[0] == f"to/{name}/{number}"]
                    assert order == sorted(order)
            fresh = Client("fresh", clean=True).connect(process)
            with clients(fresh):
                fresh.subscribe("news")
                fresh.until(lambda: fresh.received)
                assert fresh.received == [("news", "today", False, True)]


def test_a_full_disk_is_told_to_publishers_and_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The kernel lets no file of the broker grow, as a full disk would not."""
    text = "x" * 10_000
    with broker(tmp_path) as process:
        Client("lamp", 5).connect(process).subscribe_and_end("a/#")
        five, three = (
            Client("five", 5, clean=True).connect(process),
            Client("three", clean=True).connect(process),
        )
        fresh = Client("fresh", 5).connect(process)
        with clients(five, three, fresh):
            size = (tmp_path / "kept" / "broker.redb").stat().st_size
            process.limit_files(size)
            number = 0
            while 0x97 not in five.acknowledged.values():
                mid = five.publish("a/five", f"{number} {text}")
                five.until(lambda mid=mid: mid in five.acknowledged)
                number += 1
            assert "times=" in " ".join(process.line(" unwritten times="))
            three.publish("a/three", text)
            three.until(lambda: three.is_gone)
            assert not three.acknowledged
            process.limit_files(1)  # A subscription still found room, as it is small.
            fresh.subscribe("a/#")
            assert fresh.subscribed == [0x97]
            process.limit_files(None)
            mid = five.publish("a/five", f"{number} {text}")
            five.until(lambda: mid in five.acknowledged)
            assert five.acknowledged[mid] == 0
        acknowledged = [mid for mid, code in five.acknowledged.items() if code in (0, 0x10)]
        assert len(acknowledged) == number
    with broker(tmp_path) as process:
        lamp = Client("lamp", 5).connect(process)
        with clients(lamp):
            lamp.until(lambda: len(lamp.received) >= number)
            received = [int(one[1].split()[0]) for one in lamp.received if one[0] == "a/five"]
            assert received == [*range(number - 1), number]


async def test_kept_sessions_are_shown_after_a_restart_and_a_removed_one_stays_away(tmp_path: Path) -> None:
    keeping = {**EVERYBODY, "backend": {"embedded": {"persistence": str(tmp_path / "kept")}}}
    how = [connect(name, clean_session=False) for name in ("lamp", "clock")]
    async with running(**keeping) as service:
        for one in how:
            async with log_in(service.address(), one) as client:
                assert client.connack == WELCOME
                await client.ask(subscribe("a/#", "b/+", qos=1))
                client.send(DISCONNECT)
                assert await client.end() == b""
    async with running(**keeping) as service:
        (lamp,) = [row for row in await rows(service) if row["clientId"] == "lamp"]
        assert (lamp["connectionState"], lamp["subscriptionsCount"]) == ("DISCONNECTED", 2)
        assert (lamp["clientIpAdr"], lamp["clientPort"], lamp["username"]) == (*CLIENT, "user")
        assert (lamp["mqttVersion"], lamp["keepAliveSeconds"]) == ("MQTT_3_1_1", 60)
        assert lamp["sessionEndTs"] == lamp["disconnectedAt"] + 7 * 86_400_000
        assert 0 < lamp["connectedAt"] <= lamp["disconnectedAt"]
        view = await service.service.sessions.get("lamp")
        assert view is not None
        assert view.subscriptions == {"a/#": 1, "b/+": 1}
        assert await service.service.sessions.remove("lamp")
        async with log_in(service.address(), how[0]) as client:
            assert client.connack == WELCOME
        assert await service.service.sessions.remove("clock")
    async with running(**keeping) as service:
        assert [row["clientId"] for row in await rows(service)] == ["lamp"]
        async with log_in(service.address(), how[1]) as client:
            assert client.connack == WELCOME


async def test_a_store_of_another_process_is_refused_with_its_name(tmp_path: Path) -> None:
    store = tmp_path / "kept"
    keeping = {**EVERYBODY, "backend": {"embedded": {"persistence": str(store)}}}
    async with running(**keeping):
        with pytest.raises(OSError, match=f"persistence {store}: another process has it"):
            async with running(**keeping):
                pass


def test_a_place_that_could_be_used_is_told_from_others(tmp_path: Path) -> None:
    assert not_writable(tmp_path) is None
    assert not_writable(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()
    missing = tmp_path / "not" / "there"
    assert not_writable(missing) == f"{missing.parent} is not a directory that is there: make it first"
    file = tmp_path / "file"
    file.write_text("")
    assert not_writable(file) == "must be a directory, as the broker makes files in it"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("broker.yaml", "must be a directory, as the broker makes files in it"),
        ("not/there", "{directory}/not is not a directory that is there: make it first"),
    ],
)
def test_check_and_start_refuse_a_bad_place(place: str, why: str, tmp_path: Path) -> None:
    text = CONFIG.format(directory=tmp_path).replace("/kept", f"/{place}")
    (tmp_path / "broker.yaml").write_text(text)
    done = run(tmp_path, "--config", "broker.yaml", "--check")
    assert done.returncode == 2
    assert done.stderr == (
        "proxyproto-rs broker: broker.yaml:3: backend.embedded.persistence: "
        f"{tmp_path}/{place}: {why.format(directory=tmp_path)}\n"
    )
    done = run(tmp_path, "--config", "broker.yaml")
    assert done.returncode == 2
    assert f"persistence {tmp_path}/{place}: " in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_where_nothing_may_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not_writable(tmp_path) == "the broker may not write there"
    assert not_writable(tmp_path / "new") == f"may not be made in {tmp_path}"
