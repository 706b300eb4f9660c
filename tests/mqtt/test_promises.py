"""What a configured broker does for its operator, end to end: policies, audit, analytics, bans, lists, reload."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from interop.test_aws_nlb import capture
from proxyproto_rs.mqtt import (
    BlockedClient,
    BlockQuery,
    BrokerConfig,
    ConfigError,
    SessionQuery,
    UnauthorizedQuery,
)
from proxyproto_rs.mqtt.config import Loaded

from .peers import (
    CLIENT,
    DISCONNECT,
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

    from .peers import Broker

INSIDE = ("10.1.2.3", 40000)
WRONG: dict[str, Any] = {"password": b"wrong"}


async def answer(broker: Broker, source: Any, listener: str = "tcp", **changes: Any) -> bytes:
    """Return the answer to a CONNECT from `source`; b"" if the connection is closed."""
    async with log_in(broker.address(listener), connect(**changes), source=source) as client:
        return client.connack


# filter and apply policies by real address; access control


async def test_an_admin_comes_in_from_inside_only() -> None:
    access = [
        {"users": ["admin"], "networks": ["10.0.0.0/8"], "action": "allow"},
        {"users": ["admin"], "action": "deny"},
    ]
    async with running(access=access) as broker:
        assert await answer(broker, INSIDE, username="admin") == WELCOME
        assert await answer(broker, CLIENT, username="admin") == connack(5)
        (row,) = await broker.rows()
        assert await answer(broker, CLIENT, client_id="other") == WELCOME
        assert (row.reason_code, row.ip_address, row.username) == ("access-denied", CLIENT[0], "admin")
        assert broker.plugin("Passwords").asked[0].username == "admin"
        assert len(broker.plugin("Passwords").asked) == 2, (
            "no plugin hears of a client that the rules keep out"
        )


async def test_allow_and_deny_are_of_the_real_client() -> None:
    listeners = {
        "tcp": {"proxy": {"trusted": ["127.0.0.1"], "deny": [CLIENT[0]]}},
        "lan": {"type": "tcp", "proxy": {"trusted": ["127.0.0.1"], "allow": ["10.0.0.0/8"]}},
    }
    async with running(listeners=listeners) as broker:
        assert await answer(broker, CLIENT) == b""
        assert await answer(broker, OTHER) == WELCOME
        assert await answer(broker, OTHER, "lan") == b""
        assert await answer(broker, INSIDE, "lan") == WELCOME
        rows = await broker.rows(2)
        assert {(row.ip_address, row.reason_code) for row in rows} == {
            (CLIENT[0], "denied"),
            (OTHER[0], "denied"),
        }


async def test_a_block_expires() -> None:
    async with running() as broker:
        until = int((time.time() + 2) * 1000)
        await broker.service.blocked.add(
            BlockedClient(type="IP_ADDRESS", value=CLIENT[0], expiration_time=until)
        )
        assert await answer(broker, CLIENT) == b""
        await broker.until(lambda: time.time() * 1000 > until)
        assert await answer(broker, CLIENT) == WELCOME
        (block,) = (await broker.service.blocked.find(BlockQuery())).data
        assert block.status == "EXPIRED"


# bans


AUTO = {"enabled": True, "max_failures": 5, "window": 60, "block_for": 60}


async def test_five_wrong_logins_and_the_sixth_connection_is_refused_before_its_connect() -> None:
    async with running(auto_block=AUTO) as broker:
        for number in range(5):
            assert await answer(broker, CLIENT, client_id=f"dev-{number}", **WRONG) == connack(5)
        async with dial(broker.address(), source=CLIENT) as sixth:
            assert await sixth.end() == b"", "refused without a CONNECT"
        assert await answer(broker, OTHER) == WELCOME, "behind the same proxy"
        (block,) = (await broker.service.blocked.find(BlockQuery())).data
        assert (block.type, block.value, block.created_by, block.strikes) == (
            "IP_ADDRESS",
            CLIENT[0],
            "auto",
            1,
        )
        await broker.service.blocked.remove("IP_ADDRESS", CLIENT[0])
        assert await answer(broker, CLIENT) == WELCOME


async def test_a_balancer_that_forgets_its_headers_is_not_banned() -> None:
    listeners = {"tcp": {"proxy_protocol": "off"}}
    async with running(auto_block={**AUTO, "max_failures": 1}, listeners=listeners) as broker:
        for _ in range(3):
            assert await answer(broker, None, **WRONG) == connack(5)
        assert await answer(broker, None) == WELCOME


# mixing: with and without a header on one port


async def test_with_and_without_a_header_on_one_port() -> None:
    listeners = {"tcp": {"proxy_protocol": "optional", "proxy": {"trusted": ["127.0.0.1"]}}}
    async with (
        running(listeners=listeners) as broker,
        log_in(broker.address(), connect("proxied")),
        log_in(broker.address(), connect("direct"), source=None) as direct,
    ):
        own = direct.writer.get_extra_info("sockname")
        rows = (await broker.service.sessions.find(SessionQuery())).data
        assert {(row.client_id, row.connection.client, row.connection.proxy_version) for row in rows} == {
            ("proxied", CLIENT, 2),
            ("direct", own, 0),
        }


async def test_an_untrusted_peer_cannot_spoof_on_a_mixed_port() -> None:
    listeners = {
        "tcp": {"proxy_protocol": "optional", "proxy": {"trusted": ["10.9.9.9"], "untrusted": "direct"}}
    }
    async with running(listeners=listeners) as broker:
        async with dial(broker.address(), connect().encode(), source=CLIENT) as spoofer:
            assert await spoofer.end() == b""
        assert broker.service.sessions.connected == 0
        (row,) = await broker.rows()
        assert (row.ip_address, row.reason_code) == ("127.0.0.1", "unexpected-header")


# audit


async def test_one_audit_line_for_each_event_with_the_real_address(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    config = {"audit": {"file": str(path)}, "mqtt": {"connect_timeout": 5}}
    async with running(**config) as broker:
        async with log_in(broker.address()) as client:
            await client.ask(subscribe("secret/x"))
            client.send(publish("secret/x", b"x"))
            assert await client.ask(PINGREQ) == PINGRESP
            client.send(DISCONNECT)
            await client.end()
        await answer(broker, OTHER, **WRONG)
        async with dial(broker.address(), header=b"GET / HTTP/1.1\r\n\r\n") as stranger:
            await stranger.end()
        await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="x"), by="operator")
        await broker.service.blocked.remove("CLIENT_ID", "x", by="operator")
        async with log_in(broker.address(), connect("kept", clean_session=False)):
            await broker.service.sessions.disconnect("kept", by="operator")
        await broker.service.sessions.remove("kept", by="operator")
        await broker.service.unauthorized.delete("dev", by="operator")
        with pytest.raises(ConfigError):
            await broker.service.reload(loaded(broker, store="sqlite:elsewhere"))
        await broker.service.reload(loaded(broker, limits={"max_sessions": 9}))
        await broker.rows(1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] != "connection.refused"] == [
        "broker.started",
        "client.connected",
        "subscribe.denied",
        "publish.denied",
        "client.disconnected",
        "client.refused",
        "block.added",
        "block.removed",
        "client.connected",
        "session.disconnect",
        "client.disconnected",
        "session.remove",
        "unauthorized.delete",
        "config.rejected",
        "config.reloaded",
        "broker.stopping",
    ]
    by_event = {line["event"]: line for line in reversed(lines)}
    real = {"ip": CLIENT[0], "port": CLIENT[1]}
    for event in ("client.connected", "client.disconnected", "subscribe.denied", "publish.denied"):
        assert (by_event[event]["client"], by_event[event]["proxy"]["ip"]) == (real, "127.0.0.1")
    assert by_event["client.refused"]["client"] == {"ip": OTHER[0], "port": OTHER[1]}
    assert by_event["client.refused"]["reason"] == "bad-credentials"
    assert by_event["client.disconnected"]["reason"] == "disconnect"
    assert by_event["connection.refused"]["reason"] == "missing-header"
    assert by_event["connection.refused"]["client"]["ip"] == "127.0.0.1"
    assert by_event["connection.refused"]["count"] == 1
    for event in ("session.disconnect", "session.remove"):
        assert (by_event[event]["by"], by_event[event]["clientId"]) == ("operator", "kept")
        assert by_event[event]["client"] == real
    deleted = by_event["unauthorized.delete"]
    assert (deleted["by"], deleted["clientId"], deleted["ip"], deleted["count"]) == (
        "operator",
        "dev",
        None,
        1,
    )
    assert by_event["block.added"]["by"] == "operator"
    assert by_event["block.added"]["block"]["value"] == "x"
    assert "store" in by_event["config.rejected"]["detail"]
    assert by_event["config.reloaded"]["changed"] == ["limits"]
    assert {line["node"] for line in lines} == {"test"}


# analytics


async def test_the_three_noisiest_addresses() -> None:
    async with running() as broker:
        for last, times in ((1, 5), (2, 3), (3, 4), (4, 1)):
            for number in range(times):
                await answer(broker, (f"198.51.100.{last}", 1000 + number), **WRONG)
        await answer(broker, CLIENT)
        await broker.until(lambda: broker.service.sessions.connected == 0)
        noisiest = await broker.service.top("refused", limit=3)
        assert [entry.address for entry in noisiest] == ["198.51.100.1", "198.51.100.3", "198.51.100.2"]
        assert [round(entry.count) for entry in noisiest] == [5, 4, 3]
        (network,) = await broker.service.top("refused", prefix=24)
        assert (network.address, round(network.count)) == ("198.51.100.0/24", 13)
        assert [entry.address for entry in await broker.service.top("connects")] == [CLIENT[0]]
        assert [entry.address for entry in await broker.service.top("bytes")] == [CLIENT[0]]
        async with log_in(broker.address()):
            assert [entry.address for entry in await broker.service.top("sessions")] == [CLIENT[0]]
        minutes = await broker.service.history()
        assert sum(minute.accepted for minute in minutes) == 2
        assert sum(minute.refused.get("bad-credentials", 0) for minute in minutes) == 13


# sessions: list, filters, disconnect, remove


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"one", "two", "kept"}),
    ({"client_ip_address": "192.0.2.0/24"}, {"one"}),
    ({"client_ip_address": "198.51"}, {"two", "kept"}),
    ({"connected_status_list": ("DISCONNECTED",)}, {"kept"}),
    ({"clean_start_list": (True,)}, {"one", "two"}),
    ({"subscriptions": 1, "subscription_operation": "GREATER_OR_EQUAL"}, {"two"}),
    ({"listener_list": ("lan",)}, {"two"}),
    ({"proxy_version": 0}, set()),
    ({"username": "user"}, {"one", "two", "kept"}),
    ({"text_search": "on"}, {"one"}),
]


async def test_the_sessions_list_and_its_filters() -> None:
    async with running(listeners={"tcp": {}, "lan": {"type": "tcp"}}) as broker:
        async with log_in(broker.address(), connect("kept", clean_session=False), source=OTHER) as kept:
            kept.send(DISCONNECT)
            await kept.end()
        async with (
            log_in(broker.address(), connect("one")),
            log_in(broker.address("lan"), connect("two"), source=OTHER) as two,
        ):
            await two.ask(subscribe("a"))
            for query, names in FILTERS:
                page = await broker.service.sessions.find(SessionQuery(**query))
                assert {row.client_id for row in page.data} == names, query
            await broker.service.sessions.disconnect("two")
            assert await two.packet() == b""
        await broker.service.sessions.remove("kept")
        assert (await broker.service.sessions.find(SessionQuery(text_search="kept"))).total_elements == 0


# reload


def loaded(broker: Broker, **sections: Any) -> Loaded:
    """The broker's configuration with other sections, as a file would give it."""
    tree = broker.service.config.model_dump()
    for listener in tree["listeners"].values():
        del listener["name"]
    return Loaded(BrokerConfig.model_validate({**tree, **sections}), {}, ())


async def test_a_reload_ends_whom_it_forbids_and_nobody_else() -> None:
    async with running() as broker:
        async with (
            log_in(broker.address(), connect("one")) as one,
            log_in(broker.address(), connect("two"), source=OTHER) as two,
        ):
            denied = {"clients": ["o*"], "networks": ["192.0.2.0/24"], "action": "deny"}
            assert await broker.service.reload(loaded(broker, access=[denied])) == ("access",)
            assert await one.packet() == b""
            assert await two.ask(PINGREQ) == PINGRESP
        assert await answer(broker, CLIENT, client_id="one") == connack(5)
        assert await answer(broker, OTHER, client_id="one") == WELCOME


async def test_a_reload_moves_limits_bans_and_tables() -> None:
    async with running() as broker:
        service = broker.service
        await service.reload(
            loaded(
                broker,
                limits={"max_sessions": 1},
                auto_block={**AUTO, "max_failures": 2},
                unauthorized={"max_rows": 1},
            )
        )
        async with log_in(broker.address()):
            assert await answer(broker, OTHER, client_id="another") == connack(3)
        await broker.until(lambda: not service.sessions.connected)
        for number in range(2):
            assert await answer(broker, OTHER, client_id=f"x{number}", **WRONG) == connack(5)
        assert await answer(broker, OTHER) == b""
        rows = -1
        while rows != 1:
            # The row of the connection that was refused above may come after a purge.
            await service.unauthorized.flush()
            await service.unauthorized.purge()
            rows = (await service.unauthorized.find(UnauthorizedQuery())).total_elements


async def test_two_reloads_at_once_end_with_one_of_them() -> None:
    async with running() as broker:
        await asyncio.gather(
            *(broker.service.reload(loaded(broker, limits={"max_sessions": number})) for number in (3, 4))
        )
        assert broker.service.gate.limits == broker.service.config.limits


# AWS Network Load Balancer, as captured


async def test_the_client_behind_an_aws_load_balancer_and_its_vpc_endpoint() -> None:
    async with running() as broker:
        header = capture("rw-aws-nlb-vpce-example")
        async with log_in(broker.address(), header=header) as client:
            assert client.connack == WELCOME
            row = (await broker.service.sessions.find(SessionQuery())).data[0].to_json()
            shown = (row["clientIpAdr"], row["clientPort"], row["destinationIpAdr"], row["destinationPort"])
            assert shown == ("172.31.7.113", 51442, "172.31.10.31", 80)
            assert row["vpcEndpointId"] == "vpce-08d2bf15fac5001c9"


async def test_the_health_check_of_an_aws_load_balancer_leaves_nothing() -> None:
    async with running() as broker:
        async with dial(broker.address(), header=capture("rw-aws-nlb-healthcheck-local-inet-tlvs")) as check:
            check.writer.write_eof()
            assert await check.end() == b""
        await broker.until(lambda: broker.service.stats()["tcp"]["local"] == 1)
        assert (await broker.service.unauthorized.find(UnauthorizedQuery())).total_elements == 0
