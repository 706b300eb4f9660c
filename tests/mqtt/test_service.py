"""The whole broker: what keeps it from starting, what a reload changes, what new rules do to open sessions."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header
from proxyproto_rs.mqtt import BlockedClient, BlockQuery, BrokerConfig, BrokerService, ConfigError, StoreError
from proxyproto_rs.mqtt.config import Loaded
from proxyproto_rs.mqtt.tables.session_query import SLICE

from . import plugins
from .http.many import fill
from .peers import (
    CLIENT,
    OTHER,
    PINGREQ,
    PINGRESP,
    WELCOME,
    connack,
    connect,
    dial,
    log_in,
    publish,
    running,
    subscribe,
)

if TYPE_CHECKING:
    from pathlib import Path

    from proxyproto_rs.mqtt.telling.analytics import By

    from .peers import Broker


def config(**sections: Any) -> BrokerConfig:
    base: dict[str, Any] = {
        "listeners": {"tcp": {"bind": "127.0.0.1:0"}},
        "store": "sqlite::memory:",
        "amqtt": {"plugins": dict(plugins.ALL)},
    }
    return BrokerConfig.model_validate({**base, **sections})


async def start_fails(wrong: type[Exception], **sections: Any) -> str:
    with pytest.raises(wrong) as refused:
        await BrokerService(config(**sections)).start()
    return str(refused.value)


async def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listeners = {"tcp": {"bind": "127.0.0.1:0"}, "ws": {"bind": f"127.0.0.1:{port}"}}
        with pytest.raises(OSError) as refused:
            await BrokerService(config(listeners=listeners)).start()
        assert refused.value.errno == errno.EADDRINUSE
        assert str(refused.value.strerror).startswith(f"listeners.ws.bind: 127.0.0.1:{port}: ")


async def test_a_bad_certificate(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    tls = {"certfile": str(tmp_path / "junk.pem"), "keyfile": str(tmp_path / "junk.pem")}
    text = await start_fails(ConfigError, listeners={"ssl": {"bind": "127.0.0.1:0", "tls": tls}})
    assert text.startswith("listeners.ssl.tls.certfile: ")
    assert text.count("\n") == 0


async def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = await start_fails(StoreError, store=f"sqlite:{tmp_path}/file/broker.db")
    assert str(tmp_path) in text


async def test_an_audit_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        await BrokerService(config(audit={"file": str(tmp_path / "none" / "audit.log")})).start()
    assert str(refused.value.strerror).startswith("audit.file: ")


PLUGINS = [
    ({"mqtt.plugins.Missing": {}}, "amqtt.plugins.mqtt.plugins.Missing: cannot be imported"),
    ({"mqtt.plugins.Passwords": {"no_such_option": 1}}, "amqtt.plugins.mqtt.plugins.Passwords: amqtt says: "),
    ({"mqtt.plugins.Topics": {}}, "amqtt.plugins: holds no auth plugin"),
]


@pytest.mark.parametrize(("listed", "said"), PLUGINS, ids=["missing", "option", "no-auth"])
async def test_plugins_that_cannot_be_used(listed: dict[str, Any], said: str) -> None:
    text = await start_fails(ConfigError, amqtt={"plugins": listed})
    assert text.startswith(said)


async def test_start_and_stop_leave_nothing_and_can_be_repeated() -> None:
    service = BrokerService(config())
    await service.start()
    await service.stop()
    await service.stop()
    async with service:
        assert service.stats()["tcp"].accepted == 0


async def test_stopping_ends_everybody_at_once() -> None:
    async with running() as broker, log_in(broker.address(), connect(clean_session=False)) as client:
        await broker.service.stop()
        assert await client.end() == b""
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.disconnect_reason == "server-shutdown"


async def reload(broker: Broker, **changes: Any) -> tuple[str, ...]:
    service = broker.service
    tree = service.config.model_dump()
    listeners = {
        name: {
            "bind": str(listener.bind),
            "proxy_protocol": "required",
            **changes.get("listeners", {}).get(name, {}),
        }
        for name, listener in service.config.listeners.items()
    }
    sections = {
        "node_id": "test",
        "store": tree["store"],
        "proxy": {"trusted": ["127.0.0.0/8"]},
        "amqtt": {"plugins": dict(plugins.ALL)},
        **changes,
        "listeners": listeners,
    }
    return await service.reload(Loaded(BrokerConfig.model_validate(sections), {}, ()))


async def test_a_reload_changes_limits_and_deadlines() -> None:
    async with running() as broker, log_in(broker.address(), connect("one")) as one:
        changed = await reload(broker, limits={"max_sessions": 1}, mqtt={"max_connect_size": 100})
        assert set(changed) == {"limits", "mqtt"}
        async with log_in(broker.address(), connect("two")) as two:
            assert two.connack == connack(3)
        async with dial(broker.address(), connect("x" * 100).encode()) as long:
            assert await long.end() == b""
        assert await one.ask(PINGREQ) == PINGRESP


async def test_a_reload_that_denies_an_address_ends_its_sessions() -> None:
    async with (
        running() as broker,
        log_in(broker.address(), connect("one")) as one,
        log_in(broker.address(), connect("two"), source=OTHER) as two,
    ):
        await reload(broker, proxy={"trusted": ["127.0.0.0/8"], "deny": [OTHER[0]]})
        assert await two.end() == b""
        assert await one.ask(PINGREQ) == PINGRESP
        async with dial(broker.address(), connect("three").encode(), source=OTHER) as three:
            assert await three.end() == b""
        assert [row.reason_code for row in await broker.rows()] == ["denied"]
        assert broker.service.metrics.disconnects["tcp", "blocked"] == 1
        await reload(broker)
        async with log_in(broker.address(), connect("three"), source=OTHER) as three:
            assert three.connack == WELCOME


async def test_a_reload_with_access_rules_ends_whom_they_forbid() -> None:
    rules = [
        {"users": ["chief"], "networks": ["10.0.0.0/8"], "action": "allow"},
        {"users": ["chief"], "action": "deny"},
    ]
    async with running() as broker, log_in(broker.address(), connect(username="chief")) as client:
        await reload(broker, access=rules)
        assert await client.end() == b""
        async with log_in(broker.address(), connect(username="chief")) as outside:
            assert outside.connack == connack(5)
        async with log_in(broker.address(), connect(username="chief"), source=("10.1.2.3", 5)) as inside:
            assert inside.connack == WELCOME
        assert [row.reason_code for row in await broker.rows()] == ["access-denied"]


FILE = """
listeners: {tcp: {bind: 127.0.0.1:0}}
amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}
"""


async def test_a_reload_reads_the_file_again_that_was_loaded(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(FILE + "limits: {max_sessions: 2}\n")
    async with BrokerService(BrokerConfig.load(file, environ={})) as service:
        file.write_text(FILE + "limits: {max_sessions: 1}\n")
        assert await service.reload() == ("limits",)
        assert service.gate.limits.max_sessions == 1
        file.write_text(FILE + "limits: {max_sessions: 3}\n")
        assert await service.reload() == ("limits",), "the second one was forgotten"


async def test_a_configuration_made_in_code_comes_from_no_file(tmp_path: Path) -> None:
    async with running() as broker:
        with pytest.raises(ValueError, match="came from no file"):
            await broker.service.reload()
    file = tmp_path / "broker.yaml"
    file.write_text(FILE)
    config = BrokerConfig.load(file, environ={})
    assert config.loaded_from is not None
    assert config.model_copy().loaded_from == config.loaded_from
    assert config.model_copy(update={"node_id": "here"}).loaded_from is None
    assert config == BrokerConfig.load(file, environ={})
    assert config == config.model_copy(update={"node_id": config.node_id})
    assert config != config.model_copy(update={"node_id": "here"})


async def test_a_reload_that_needs_a_restart_changes_nothing() -> None:
    async with running() as broker:
        before = broker.service.config
        with pytest.raises(ConfigError, match=r"node_id.*restart"):
            await reload(broker, node_id="another", limits={"max_sessions": 1})
        assert broker.service.config is before
        assert broker.service.gate.limits.max_sessions == 0


async def test_a_block_ends_sessions_and_refuses_before_mqtt() -> None:
    async with (
        running() as broker,
        log_in(broker.address(), connect("one")) as one,
        log_in(broker.address(), connect("two"), source=OTHER) as two,
    ):
        blocked = broker.service.blocked
        await blocked.add(BlockedClient(type="IP_ADDRESS", value="198.51.100.0/24"))
        assert await two.end() == b""
        assert await one.ask(PINGREQ) == PINGRESP
        async with dial(broker.address(), connect("three").encode(), source=OTHER) as three:
            assert await three.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.client_id) == ("blocked", OTHER[0], "")
        (block,) = (await blocked.find(BlockQuery())).data
        assert block.hits == 1
        await blocked.remove("IP_ADDRESS", "198.51.100.0/24")
        async with log_in(broker.address(), connect("three"), source=OTHER) as three:
            assert three.connack == WELCOME


BLOCKS = [
    BlockedClient(type="CLIENT_ID", value="dev"),
    BlockedClient(type="USERNAME", value="user"),
    BlockedClient(type="REGEX", value="d.v", regex_match_target="BY_CLIENT_ID"),
]


async def test_a_storm_of_blocks_costs_one_look_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as broker, log_in(broker.address()) as client:
        sessions, looks, over = broker.service.sessions, 0, asyncio.Event()
        look = sessions.end_where

        async def slow(*of_it: Any) -> int:
            nonlocal looks
            looks += 1
            await over.wait()
            return await look(*of_it)

        monkeypatch.setattr(sessions, "end_where", slow)
        others = [BlockedClient(type="CLIENT_ID", value=f"other-{number}") for number in range(100)]
        await asyncio.gather(*(broker.service.blocked.add(block) for block in others))
        await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="dev"))
        over.set()
        assert await client.end() == b""
        assert looks == 2


@pytest.mark.parametrize("block", BLOCKS, ids=[block.type for block in BLOCKS])
async def test_other_blocks_are_found_at_connect_before_any_plugin(block: BlockedClient) -> None:
    async with running() as broker:
        await broker.service.blocked.add(block)
        async with log_in(broker.address()) as client:
            assert client.connack == connack(5)
        (row,) = await broker.rows()
        assert (row.reason_code, row.client_id, row.username) == ("blocked", "dev", "user")
        assert not broker.plugin("Passwords").asked


async def test_a_proxy_is_never_blocked() -> None:
    async with running() as broker:
        with pytest.raises(ValueError, match=r"127\.0\.0\."):
            await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="127.0.0.1"))


async def test_wrong_logins_ban_the_address_and_only_that() -> None:
    auto_block = {"enabled": True, "max_failures": 5}
    async with running(auto_block=auto_block) as broker:
        for number in range(5):
            async with log_in(broker.address(), connect(f"guess-{number}", password=b"wrong")) as client:
                assert client.connack == connack(5)
        async with dial(broker.address(), connect().encode()) as client:
            assert await client.end() == b""
        async with log_in(broker.address(), source=OTHER) as client:
            assert client.connack == WELCOME
        (block,) = (await broker.service.blocked.find(BlockQuery())).data
        assert (block.value, block.created_by, block.strikes) == (CLIENT[0], "auto", 1)


async def test_a_success_clears_the_row_of_that_address_only() -> None:
    async with running() as broker:
        for source in (CLIENT, OTHER):
            async with log_in(broker.address(), connect(password=b"wrong"), source=source):
                pass
        await broker.rows(2)
        async with log_in(broker.address()):
            assert [row.ip_address for row in await broker.rows(1)] == [OTHER[0]]


async def test_health_checks_leave_no_trace() -> None:
    own = Header.v1(("127.0.0.1", 1), ("127.0.0.1", 2)).encode()
    async with running() as broker:
        for number, header in enumerate((Header.local().encode(), Header.unknown().encode(), own), 1):
            async with dial(broker.address(), header=header) as client:
                # A check that has ended before it is looked at does not reach the broker.
                await broker.until(lambda number=number: broker.service.stats()["tcp"].accepted == number)
                client.writer.write_eof()
                assert await client.end() == b""
        assert broker.service.metrics.connects["tcp", "closed-early"] == 3
        assert (await broker.rows(0)) == []


async def test_audit_lines_carry_the_real_address(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    async with running(audit={"file": str(path)}) as broker:
        async with log_in(broker.address()) as client:
            await client.ask(subscribe("secret/a", "b"))
            client.send(publish("secret/b", b"x", 1))
            await client.packet()
        async with log_in(broker.address(), connect(password=b"wrong")):
            pass
        async with dial(broker.address(), connect().encode(), source=None) as client:
            await client.end()
        await broker.rows(2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = {line["event"]: line for line in lines}
    assert set(events) >= {
        "broker.started", "client.connected", "subscribe.denied", "publish.denied", "client.disconnected", "client.refused",
        "connection.refused", "broker.stopping",
    }  # fmt: skip
    for event in (
        "client.connected",
        "client.disconnected",
        "client.refused",
        "publish.denied",
        "subscribe.denied",
    ):
        assert events[event]["client"] == {"ip": CLIENT[0], "port": CLIENT[1]}
    assert events["publish.denied"]["topic"] == "secret/b"
    assert events["connection.refused"]["reason"] == "missing-header"
    assert broker.service.metrics.acl_denied == {"subscribe": 1, "publish": 1}


async def test_top_and_history() -> None:
    async with (
        running() as broker,
        log_in(broker.address()),
        log_in(broker.address(), connect("two"), source=OTHER),
    ):
        async with log_in(broker.address(), connect("three"), source=OTHER):
            top = await broker.service.top("connects", limit=1)
            assert [(entry.address, round(entry.count)) for entry in top] == [(OTHER[0], 2)]
            assert [entry.address for entry in await broker.service.top("sessions")] == [OTHER[0], CLIENT[0]]
        (minute, *_) = await broker.service.history()
        assert minute.accepted in (1, 2, 3)


async def test_clients_log_in_while_the_busiest_of_many_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as broker:
        service, turns = broker.service, 0
        fill(service, 20 * SLICE)
        records = list(service.sessions.records())
        addresses = [(record.connection.client[0], 1) for record in records]
        monkeypatch.setattr(service.sessions, "clients", lambda: iter(records))
        monkeypatch.setattr(service.sessions, "addresses", lambda: iter(addresses))

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        kinds: list[tuple[By, int]] = [("bytes", 20), ("sessions", 1)]
        for by, least in kinds:
            for prefix, entries in ((32, 20 * SLICE), (24, 40)):
                before = turns
                assert len(await service.top(by, prefix, limit=20 * SLICE)) == entries
                assert turns - before >= least
        before = turns
        await service._count_top()
        assert turns > before
        counting.cancel()


async def test_several_listeners_of_each_type_and_mode() -> None:
    listeners = {
        "tcp": {},
        "inside": {"type": "tcp", "proxy_protocol": "off"},
        "mixed": {"type": "tcp", "proxy_protocol": "optional"},
    }
    async with running(listeners=listeners) as broker:
        for name, source in (("tcp", CLIENT), ("inside", None), ("mixed", None), ("mixed", CLIENT)):
            async with log_in(broker.address(name), source=source) as client:
                assert client.connack == WELCOME
                record = broker.service.sessions.record("dev")
                assert record is not None
                assert record.connection.listener == name
                assert record.connection.address_source == ("peer" if source is None else "header")
        assert broker.service.stats()["mixed"]["direct"] == 1


@pytest.mark.timeout(300)
async def test_10000_failed_logins_from_1000_addresses_delay_nobody_and_are_counted() -> None:
    async with running() as broker:

        async def guess(address: str) -> None:
            for number in range(10):
                async with log_in(
                    broker.address(), connect("victim", password=b"x"), source=(address, number + 1)
                ) as client:
                    assert client.connack == connack(5)

        addresses = [f"10.{n // 256}.{n % 256}.1" for n in range(1000)]
        for start in range(0, 1000, 50):
            await asyncio.gather(*(guess(address) for address in addresses[start : start + 50]))
        rows = await broker.rows(1000)
        assert {row.ip_address for row in rows} == set(addresses)
        assert sum(row.attempts for row in rows) == 10_000
        assert broker.service.unauthorized.dropped == 0
