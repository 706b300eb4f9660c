"""Clients through the front to the broker in this process: logins, topics, sessions, and what is written down of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from argon2 import PasswordHasher

from mqtt.peers import (
    CLIENT,
    DISCONNECT,
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    WELCOME_BACK,
    connack,
    connect,
    connect_of,
    dial,
    log_in,
    packet,
    publish,
    running,
    subscribe,
    text,
    will,
)
from proxyproto_rs.mqtt import ConfigError, SessionQuery
from proxyproto_rs.mqtt.config.broker import BrokerConfig, Loaded

if TYPE_CHECKING:
    from pathlib import Path

    from mqtt.peers import Broker
    from proxyproto_rs.mqtt.model.login import Login

EVERYBODY: dict[str, Any] = {
    "backend": {"embedded": {}},
    "auth": ["anonymous", {"plugin": f"{__name__}:knows"}],
    "amqtt": {},
}
OWN = {"topics": ["dev/%c/#"], "allow": True}


def knows(login: Login) -> bool:
    """Know every user, as a plugin of `auth`."""
    return bool(login.username)


async def rows(broker: Broker) -> list[dict[str, Any]]:
    return [record.to_json() for record in (await broker.service.sessions.find(SessionQuery())).data]


@pytest.mark.parametrize("username", ["user", None])
@pytest.mark.parametrize("version", ["MQTT_3_1", "MQTT_3_1_1", "MQTT_5"])
async def test_a_login_of_each_version_has_its_row(version: str, username: str | None) -> None:
    async with running(**EVERYBODY) as broker:
        raw = connect_of(version) if username else anonymous(version)
        async with dial(broker.address(), raw) as client:
            answer = await client.packet()
            assert (answer[0], answer[2], answer[3]) == (0x20, 0, 0)
            (row,) = await rows(broker)
            assert (row["clientIpAdr"], row["clientPort"]) == CLIENT
            assert (row["mqttVersion"], row["username"], row["upstream"]) == (version, username, None)
            client.send(DISCONNECT)
            assert await client.end() == b""
        await broker.until(lambda: len(broker.service.sessions) == 0)


def anonymous(version: str) -> bytes:
    """A CONNECT without user name and password."""
    name, level, properties = {
        "MQTT_3_1": (b"\0\6MQIsdp", 3, b""),
        "MQTT_3_1_1": (b"\0\4MQTT", 4, b""),
        "MQTT_5": (b"\0\4MQTT", 5, b"\0"),
    }[version]
    body = name + bytes((level, 2, 0, 60)) + properties + b"\0\3dev"
    return bytes((0x10, len(body))) + body


async def test_a_file_knows_the_passwords(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"own:{PasswordHasher(1, 8, 1).hash('secret')}\n")
    async with running(**{**EVERYBODY, "auth": [{"file": str(users)}]}) as broker:
        for password, answer in [(b"secret", WELCOME), (b"wrong", connack(5)), (None, connack(5))]:
            how = connect(username="own", password=password)
            async with log_in(broker.address(), how) as client:
                assert client.connack == answer, password


async def test_messages_go_from_client_to_client() -> None:
    async with (
        running(**EVERYBODY) as broker,
        log_in(broker.address(), connect("one")) as one,
        log_in(broker.address(), connect("two")) as two,
    ):
        assert (await one.ask(subscribe("a/#", qos=1)))[-1] == 1
        for number in range(100):
            assert await two.ask(publish("a/b", b"%d" % number, 1, number + 1)) == bytes(
                (0x40, 2, 0, number + 1)
            )
        for number in range(100):
            assert (await one.message()).payload == b"%d" % number


async def test_a_kept_session_is_shown_with_its_subscriptions_and_can_be_removed() -> None:
    how = connect("kept", clean_session=False)
    async with running(**EVERYBODY) as broker:
        async with log_in(broker.address(), how) as client:
            await client.ask(subscribe("a/#", "b/+", qos=1))
            view = await broker.service.sessions.get("kept")
            assert view is not None
            assert view.subscriptions == {"a/#": 1, "b/+": 1}
            with pytest.raises(ValueError, match="disconnect it first"):
                await broker.service.sessions.remove("kept")
            client.send(DISCONNECT)
            assert await client.end() == b""
        await broker.until(lambda: broker.service.sessions.client("kept") is None)
        (row,) = await rows(broker)
        assert (row["connectionState"], row["subscriptionsCount"]) == ("DISCONNECTED", 2)
        async with log_in(broker.address(), how) as client:
            assert client.connack == WELCOME_BACK
            client.send(DISCONNECT)
            assert await client.end() == b""
        await broker.until(lambda: broker.service.sessions.client("kept") is None)
        assert await broker.service.sessions.remove("kept")
        assert await rows(broker) == []
        async with log_in(broker.address(), how) as client:
            assert client.connack == WELCOME


@pytest.mark.xfail(
    strict=True, reason="rmqtt 0.24 holds the socket of a client that has gone for as long as its session"
)
async def test_kept_sessions_whose_clients_are_away_hold_no_descriptors() -> None:
    async with running(**EVERYBODY) as broker:
        before = len(os.listdir("/proc/self/fd"))
        names = [f"kept-{number}" for number in range(20)]
        for name in names:
            async with log_in(broker.address(), connect(name, clean_session=False)) as client:
                client.send(DISCONNECT)
                assert await client.end() == b""
        await broker.until(lambda: not broker.service.sessions.connected)
        held = len(os.listdir("/proc/self/fd")) - before
        for name in names:
            assert await broker.service.sessions.remove(name)
        # What the checks of the broker have open at either moment is a few at most.
        assert held < 10


async def test_a_session_can_be_disconnected_and_its_will_goes_out() -> None:
    async with (
        running(**EVERYBODY) as broker,
        log_in(broker.address(), connect("watch")) as watch,
        log_in(broker.address(), connect("dev", will=will("wills", b"gone"))) as client,
    ):
        await watch.ask(subscribe("wills"))
        assert await broker.service.sessions.disconnect("dev")
        assert await client.end() == b""
        assert (await watch.message()).payload == b"gone"


async def test_a_later_login_with_the_same_id_takes_over() -> None:
    async with running(**EVERYBODY) as broker, log_in(broker.address()) as first:
        async with log_in(broker.address()) as second:
            assert second.connack == WELCOME
            assert await first.end() == b""
        await broker.until(lambda: broker.service.metrics.disconnects["tcp", "taken-over"] == 1)


async def test_a_client_that_comes_back_at_once_is_let_in() -> None:
    async with running(**EVERYBODY) as broker:
        for attempt in range(100):
            async with log_in(broker.address()) as client:
                assert client.connack == WELCOME, attempt
                client.send(subscribe("a/#"), DISCONNECT)
                await client.end()


async def test_denied_topics_are_counted_and_audited(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    acl = [{"topics": "open/#", "networks": ["192.0.2.0/24"], "allow": True}, OWN]
    async with running(**EVERYBODY, acl=acl, audit={"file": str(audit)}) as broker:
        for source, codes in [(CLIENT, b"\1\1\x80"), (OTHER, b"\x80\1\x80")]:
            async with log_in(broker.address(), source=source) as client:
                answer = await client.ask(subscribe("open/#", "dev/dev/#", "dev/+/x", qos=1))
                assert answer[-3:] == codes
                client.send(publish("dev/other/x"), publish("dev/dev/x", b"own"), DISCONNECT)
                await client.end()
        denied = broker.service.metrics.acl_denied
        await broker.until(lambda: (denied["publish"], denied["subscribe"]) == (2, 3))
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    told = {(line["event"], line["client"]["ip"], line["topic"]) for line in lines if "topic" in line}
    assert told == {
        ("subscribe.denied", OTHER[0], "open/#"),
        ("subscribe.denied", CLIENT[0], "dev/+/x"),
        ("publish.denied", CLIENT[0], "dev/other/x"),
    }, "one line a minute for each client id, action and topic"


async def test_other_rules_hold_after_a_reload_for_clients_that_are_connected() -> None:
    async with running(**EVERYBODY, acl=[OWN]) as broker, log_in(broker.address()) as client:
        assert (await client.ask(subscribe("news")))[-1] == 0x80
        new = broker.service.config.model_dump(mode="json")
        new["acl"] = [{"topics": ["news"], "allow": True}]
        assert await broker.service.reload(Loaded(BrokerConfig.model_validate(new), {}, ())) == ("acl",)
        assert (await client.ask(subscribe("news", packet_id=2)))[-1] == 0
        new["backend"]["embedded"]["max_queued"] = 5
        with pytest.raises(ConfigError, match=r"backend\.embedded: has changed: this needs a restart"):
            await broker.service.reload(Loaded(BrokerConfig.model_validate(new), {}, ()))


async def test_a_reload_under_load_loses_no_message_and_lets_none_through() -> None:
    """Two clients publish with QoS 1 all the time, while the rules open and close the topic of one of them."""
    listen = {"topics": ["steady", "gated"], "actions": ["subscribe"], "allow": True}
    shut = [listen, {"topics": ["steady"], "allow": True}]
    rules = {0x00: [*shut, {"topics": ["gated"], "allow": True}], 0x87: shut}
    answers: dict[str, dict[bytes, int]] = {"steady": {}, "gated": {}}
    arrived: dict[str, list[bytes]] = {"steady": [], "gated": []}
    in_force: int | None = 0x00
    """What a PUBLISH on the gated topic is answered; None while a reload is under way."""
    reloads, settled = 0, 0
    is_over = False

    async def publish_all_the_time(topic: str) -> None:
        nonlocal settled
        async with dial(broker.address(), connect_of("MQTT_5", topic)) as client:
            await client.packet()
            number = 0
            while not is_over:
                number += 1
                before, message = (reloads, in_force), b"%d" % number
                client.send(packet(0x32, text(topic) + b"\0\1\0" + message))
                answer = await client.packet()
                assert answer[0] == 0x40
                code = answers[topic][message] = answer[4] if len(answer) > 4 else 0
                if topic == "gated" and before == (reloads, in_force) and in_force is not None:
                    assert code == in_force
                    settled += 1

    async def take_all() -> None:
        while True:
            message = await reader.message()
            arrived[message.topic].append(message.payload)

    async with running(**EVERYBODY, acl=rules[0x00]) as broker, log_in(broker.address()) as reader:
        assert (await reader.ask(subscribe("steady", "gated", qos=1)))[-2:] == b"\1\1"
        publishers = [asyncio.create_task(publish_all_the_time(topic)) for topic in answers]
        taking = asyncio.create_task(take_all())
        for number in range(20):
            code = (0x87, 0x00)[number % 2]
            new = {**broker.service.config.model_dump(mode="json"), "acl": rules[code]}
            in_force = None
            await broker.service.reload(Loaded(BrokerConfig.model_validate(new), {}, ()))
            in_force, reloads, enough = code, reloads + 1, settled + 10
            await broker.until(
                lambda enough=enough: settled >= enough or any(task.done() for task in publishers)
            )
        is_over = True
        await asyncio.gather(*publishers)
        allowed = {
            topic: [one for one, code in given.items() if code == 0] for topic, given in answers.items()
        }
        await broker.until(
            lambda: (
                {topic: len(got) for topic, got in arrived.items()}
                == {topic: len(sent) for topic, sent in allowed.items()}
            )
        )
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    assert arrived == allowed, "each that was acknowledged has arrived once, in order, and no other"
    assert set(answers["steady"].values()) == {0}
    assert set(answers["gated"].values()) == {0, 0x87}


async def test_whoever_finds_the_port_gets_nowhere_and_holds_up_nobody() -> None:
    async with running(**EVERYBODY) as broker:
        embedded = broker.service.front._broker  # type: ignore[attr-defined]
        host, _, port = embedded.address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
        with_secret = connect(username="user", password=embedded.secret).encode()
        async with dial((host, int(port)), with_secret, source=None) as client:
            assert await client.end() == b""
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME
        for reader, writer in silent:
            assert await reader.read() == b"", "it holds nothing of the broker's"
            writer.close()
        assert embedded.stats()["strangers"] == 51


async def test_a_forked_child_holds_nothing_of_the_broker(tmp_path: Path) -> None:
    keeping = {**EVERYBODY, "backend": {"embedded": {"persistence": str(tmp_path / "kept")}}}
    async with running(**keeping) as broker:
        embedded = broker.service.front._broker  # type: ignore[attr-defined]
        port = int(embedded.address.rpartition(":")[2])
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME
            assert held(port) == {"broker.redb", "connection", "listening socket"}
            assert held_by_a_child(port) == "set()"
            # The parent's go on.
            client.send(PINGREQ)
            assert await client.packet() == PINGRESP
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME


def held_by_a_child(port: int) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(held(port)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        answer = said.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


def held(port: int) -> set[str]:
    """What this process has open of the broker on this port."""
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            kind = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # it was the directory's own
            continue
        if kind.endswith("/broker.redb"):
            found.add("broker.redb")
        if not kind.startswith("socket:"):
            continue
        with socket.socket(fileno=os.dup(fd)) as copy:
            if copy.family != socket.AF_INET or copy.getsockname()[1] != port:
                continue
            is_listening = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            found.add("listening socket" if is_listening else "connection")
    return found
