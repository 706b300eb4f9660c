"""Lists of `blocklists` in a running broker: who is refused and how it is told, who must go, and what a reload changes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from interop.pages import examples, read
from proxyproto_rs import Header
from proxyproto_rs.mqtt import BlockedClient, BrokerConfig
from proxyproto_rs.mqtt.config import ConfigError
from proxyproto_rs.mqtt.config.blocklists import BlocklistConfig, CrowdsecConfig
from proxyproto_rs.mqtt.config.broker import load
from proxyproto_rs.mqtt.config.report import report

from . import lapi
from .http.asking import serving
from .lapi import decision
from .peers import CLIENT, OTHER, PINGREQ, PINGRESP, WELCOME, Broker, connect, dial, log_in, running

if TYPE_CHECKING:
    from pathlib import Path

FORWARDED = {"trusted": ["127.0.0.0/8"], "headers": ["x-forwarded-for"]}


def crowdsec(server: lapi.Lapi, directory: Path, **other: Any) -> dict[str, Any]:
    (directory / "key").write_text(lapi.KEY)
    return {"crowdsec": {"url": server.url, "key_file": str(directory / "key"), "every": "20ms"}, **other}


async def until_read(broker: Broker) -> None:
    await broker.until(lambda: all(state.read_at for state in broker.service.blocklists.states()))


async def test_a_listed_client_is_refused_before_any_byte_and_told_with_the_name_of_the_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = tmp_path / "audit.log"
    async with (
        lapi.serving(([decision(CLIENT[0])], None), (None, None)) as server,
        running(blocklists=[crowdsec(server, tmp_path)], audit={"file": str(audit)}) as broker,
    ):
        await until_read(broker)
        async with dial(broker.address(), source=CLIENT) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("blocked", "deny 192.0.2.10 of crowdsec covers it")
        async with log_in(broker.address(), connect(), source=OTHER) as client:
            assert client.connack == WELCOME
        assert broker.service.metrics.block_hits["BLOCKLIST"] == 1
        (state,) = broker.service.blocklists.states()
        assert (state.name, state.networks, state.hits, state.error) == ("crowdsec", 1, 1, None)
    said = [json.loads(line) for line in audit.read_text().splitlines()]
    (line,) = [event for event in said if event["event"] == "connection.refused"]
    assert (line["reason"], line["detail"]) == ("blocked", "deny 192.0.2.10 of crowdsec covers it")
    assert "denied: deny 192.0.2.10 of crowdsec covers it" in caplog.text


async def test_sessions_and_logins_of_a_newly_listed_client_end(tmp_path: Path) -> None:
    new = asyncio.Event()

    async def later(_: Any) -> Any:
        told = [decision(CLIENT[0])] if new.is_set() else None
        return web.json_response({"new": told, "deleted": None})

    audit = tmp_path / "audit.log"
    async with (
        lapi.serving(later) as server,
        running(blocklists=[crowdsec(server, tmp_path)], audit={"file": str(audit)}) as broker,
        log_in(broker.address(), connect("stays"), source=OTHER) as stays,
        log_in(broker.address(), connect("goes")) as goes,
    ):
        assert goes.connack == stays.connack == WELCOME
        await until_read(broker)
        new.set()
        assert await goes.end() == b""
        assert await stays.ask(PINGREQ) == PINGRESP
    said = [json.loads(line) for line in audit.read_text().splitlines()]
    ends = {event["clientId"]: event for event in said if event["event"] == "client.disconnected"}
    assert (ends["goes"]["reason"], ends["goes"]["detail"]) == ("blocked", "by blocklist crowdsec")


async def test_a_client_that_comes_by_x_forwarded_for_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text(CLIENT[0])
    listeners = {"ws": {"ws": {"forwarded": FORWARDED}, "proxy_protocol": "off"}}
    async with running(blocklists=[{"file": str(tmp_path / "bad")}], listeners=listeners) as broker:
        await until_read(broker)
        request = (
            f"GET /mqtt HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {CLIENT[0]}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with dial(broker.address("ws"), request.encode(), source=None) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason, row.ip_address) == ("blocked", "by blocklist bad", CLIENT[0])


async def test_health_checks_of_a_listed_proxy_are_served(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("127.0.0.1\n203.0.113.0/24")
    async with running(blocklists=[{"file": str(tmp_path / "bad")}]) as broker:
        await until_read(broker)
        (state,) = broker.service.blocklists.states()
        assert state.networks == 1, "the proxy is left out"
        async with log_in(broker.address(), connect(), header=Header.local().encode()) as client:
            assert client.connack == WELCOME


async def test_until_it_is_read_a_list_keeps_nobody_out_and_the_broker_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "proxyproto_rs.mqtt")
    async with (
        lapi.serving(500) as server,
        running(blocklists=[crowdsec(server, tmp_path)]) as broker,
    ):
        await server.times(3)
        (missing,) = await broker.service.not_ready()
        assert missing.startswith("blocklist crowdsec was not read yet: http://127.0.0.1:")
        assert missing.endswith("/v1/decisions/stream answered 500")
        async with log_in(broker.address()) as client:
            assert client.connack == WELCOME
        server.answers[:] = [([decision(OTHER[0])], None), (None, None)]
        await until_read(broker)
        assert not broker.service.blocklists.unread()
    told = [one.getMessage() for one in caplog.records if "blocklist" in one.getMessage()]
    assert [text for text in told if "answered 500" in text] == [
        f"blocklist crowdsec cannot be read, so it keeps nobody out: {server.url}/v1/decisions/stream answered 500"
    ], "an outage is told once"
    assert "blocklist crowdsec is read again" in told
    assert "blocklist crowdsec new=1 gone=0 networks=1 ended=0" in told
    assert lapi.KEY not in caplog.text


async def test_a_block_comes_first_and_its_hit_is_the_blocks(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text(CLIENT[0])
    async with running(blocklists=[{"file": str(tmp_path / "bad")}]) as broker:
        await until_read(broker)
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=CLIENT[0]))
        async with dial(broker.address()) as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert row.reason == "deny 192.0.2.10 covers it"
        await broker.service.blocked.remove("IP_ADDRESS", CLIENT[0])
        async with dial(broker.address()) as client:
            assert await client.end() == b"", "the list still names it"


async def test_a_reload_reads_files_again_and_changes_the_lists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad"
    bad.write_text(CLIENT[0])
    path = tmp_path / "broker.yaml"
    sections: dict[str, Any] = {
        "listeners": {"tcp": {"bind": "127.0.0.1:0"}},
        "proxy_protocol": "required",
        "proxy": {"trusted": ["127.0.0.0/8"]},
        "store": "sqlite::memory:",
        "amqtt": {"plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}}},
        "blocklists": [{"file": str(bad), "every": "1h"}],
    }

    def write(**changes: Any) -> None:
        path.write_text(yaml.safe_dump({**sections, **changes}))

    write()
    from proxyproto_rs.mqtt import BrokerService

    async with BrokerService(BrokerConfig.load(path)) as service:
        broker = Broker(service)

        async def answer_to(source: tuple[str, int]) -> bytes:
            async with log_in(broker.address(), connect(), source=source) as client:
                return client.connack

        await until_read(broker)
        assert (await answer_to(CLIENT), await answer_to(OTHER)) == (b"", WELCOME)
        bad.write_text(OTHER[0])
        assert await service.reload() == ()
        await broker.until(lambda: OTHER[0] in service.blocklists._lists[0].in_force)
        assert (await answer_to(CLIENT), await answer_to(OTHER)) == (WELCOME, b"")
        # The same name, another file that is missing: what was in force stays.
        write(blocklists=[{"name": "bad", "file": str(tmp_path / "none")}])
        assert await service.reload() == ("blocklists",)
        await broker.until(lambda: service.blocklists.states()[0].error)
        assert (await answer_to(CLIENT), await answer_to(OTHER)) == (WELCOME, b"")
        assert "No such file" in service.blocklists.unread()[0]
        assert "blocklist bad cannot be read, what it named before stays in force: " in caplog.text
        (tmp_path / "none").write_text(CLIENT[0])
        await service.reload()
        await until_read(broker)
        assert (await answer_to(CLIENT), await answer_to(OTHER)) == (b"", WELCOME)
        write(blocklists=[])
        await service.reload()
        assert (await answer_to(CLIENT), await answer_to(OTHER)) == (WELCOME, WELCOME)
        write(blocklists=[{"file": str(bad)}, {"file": "/elsewhere/bad"}])
        with pytest.raises(ConfigError, match="two lists with the name bad"):
            await service.reload()


async def test_the_api_and_the_metrics_tell_of_each_list(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text(CLIENT[0])
    lists = [{"file": str(tmp_path / "bad")}, {"file": str(tmp_path / "none"), "name": "missing"}]
    async with serving(blocklists=lists) as (broker, api):
        await broker.until(
            lambda: (
                [bool(one.read_at or one.error) for one in broker.service.blocklists.states()] == [True, True]
            )
        )
        async with dial(broker.address()) as client:
            await client.end()
        await broker.rows()
        bad, missing = (await api.ask("GET", "/api/blocklists")).json
        assert (bad["name"], bad["kind"], bad["networks"], bad["hits"]) == ("bad", "file", 1, 1)
        assert bad["everySeconds"] == 10
        assert 0 <= bad["ageSeconds"] < 10
        assert abs(bad["readAt"] / 1000 - time.time()) < 10
        assert (missing["networks"], missing["readAt"], missing["ageSeconds"]) == (0, 0, None)
        assert missing["error"] == f"{tmp_path}/none cannot be read: No such file or directory"
        shown = (await api.ask("GET", "/api/address", ipAddress=CLIENT[0])).json
        assert shown["blocklist"] == "bad"
        text = (await api.ask("GET", "/metrics")).text
    for line in (
        'proxyproto_mqtt_blocklist_networks{list="bad"} 1.0',
        'proxyproto_mqtt_blocklist_hits_total{list="bad"} 1.0',
        'proxyproto_mqtt_blocklist_read_successful{list="bad"} 1.0',
        'proxyproto_mqtt_blocklist_read_successful{list="missing"} 0.0',
        'proxyproto_mqtt_blocklist_read_age_seconds{list="missing"} +Inf',
        'proxyproto_mqtt_block_hits_total{type="BLOCKLIST"} 1.0',
    ):
        assert line in text


async def test_what_cannot_be_used_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = [decision("192.0.2.1", type="captcha"), decision("192.0.2.2", type="captcha")]
    async with (
        lapi.serving((told, None), (told, None)) as server,
        running(blocklists=[crowdsec(server, tmp_path)]) as broker,
    ):
        await until_read(broker)
        await server.times(4)
    lines = [one.getMessage() for one in caplog.records if "ignores" in one.getMessage()]
    assert lines == ["blocklist crowdsec ignores 2, as it does all: type 'captcha'. The first is '192.0.2.1'"]


WRONG = [
    ({}, "must name one source: crowdsec, file or url"),
    ({"file": "a", "url": "http://x/"}, "must name one source: crowdsec, file or url"),
    ({"url": "ftp://x/list"}, "must be a URL such as https://HOST/PATH"),
    ({"url": "https:///list"}, "must be a URL such as https://HOST/PATH"),
    ({"url": "https://x:99999/"}, "must be a URL such as https://HOST/PATH"),
    ({"url": "https://x/a b"}, "must be a URL such as https://HOST/PATH"),
    ({"crowdsec": {"url": "http://x:8080/v1", "key_file": "k"}}, "must be the address of the API alone"),
    ({"crowdsec": {"url": "http://x:8080"}}, "crowdsec.key_file: is required"),
    ({"crowdsec": {"url": "http://x", "key_file": "k"}, "every": "1m"}, "write it under crowdsec"),
    ({"crowdsec": {"url": "http://x", "key_file": "k", "scopes": ["Country"]}}, "must be Ip or Range"),
    ({"crowdsec": {"url": "http://x", "key_file": "k", "scopes": []}}, "must not be empty"),
    ({"file": "a", "evry": "1m"}, 'unknown key (did you mean "every"?)'),
    ({"file": "a", "name": "two words"}, "blocklists[0].name: "),
    ({"file": "a", "max_size": 0}, "must be greater than 0"),
]


def configuration(directory: Path, *lists: Any) -> Path:
    path = directory / "broker.yaml"
    sections = {"listeners": {"tcp": {"bind": "127.0.0.1:0"}}, "blocklists": list(lists)}
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.mark.parametrize(("one", "text"), WRONG)
def test_a_list_that_is_written_wrong(tmp_path: Path, one: Any, text: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        load(configuration(tmp_path, one), environ={}, allow_anonymous=True)
    assert text in str(wrong.value)
    assert f"{tmp_path}/broker.yaml:" in str(wrong.value)


def test_what_is_in_force_is_shown_without_secrets(tmp_path: Path) -> None:
    path = configuration(
        tmp_path,
        {"url": "https://reader:hunter2@lists.example/drop.txt?token=hunter3&kind=all"},
        {"crowdsec": {"url": "http://127.0.0.1:8080/", "key_file": "/etc/key"}},
    )
    text = report(load(path, environ={}, allow_anonymous=True))
    assert "hunter" not in text
    assert 'blocklists[0].url: "https://***@lists.example/drop.txt?token=***&kind=all"' in text
    assert 'blocklists[1].crowdsec.url: "http://127.0.0.1:8080"' in text
    assert 'blocklists[1].crowdsec.scopes: ["Ip", "Range"]' in text


async def test_check_reads_the_files(tmp_path: Path) -> None:
    from proxyproto_rs.mqtt.checking import check

    (tmp_path / "page").write_text("<html>\n")
    (tmp_path / "key").write_text("two words")
    path = configuration(
        tmp_path,
        {"file": str(tmp_path / "page")},
        {"file": str(tmp_path / "none")},
        {"crowdsec": {"url": "http://127.0.0.1:8080", "key_file": str(tmp_path / "key")}},
        {"url": "http://127.0.0.1:9/not-asked"},
    )
    loaded = load(path, environ={"PROXYPROTO_RS_STORE": ""}, allow_anonymous=True)
    with pytest.raises(ConfigError) as wrong:
        await check(loaded.config)
    lines = str(loaded.located(wrong.value)).splitlines()
    assert [line.partition(": ")[2][:60] for line in lines] == [
        "blocklists[0].file: is no list of networks, one a line (line",
        f"blocklists[1].file: {tmp_path}/none cannot be read: No such fi"[:60],
        f"blocklists[2].crowdsec.key_file: {tmp_path}/key must hold one"[:60],
    ]


def test_the_lists_of_the_page() -> None:
    part = {"listeners": {"tcp": {}}, **yaml.safe_load(examples("howto/crowdsec.md")["lists"])}
    crowdsec, file, url = BrokerConfig.model_validate(part).blocklists
    assert [one.label for one in (crowdsec, file, url)] == ["crowdsec", "partners-gone.txt", "drop"]
    assert (crowdsec.interval, file.interval, url.interval) == (10, 10, 43200)
    page = read("howto/crowdsec.md")
    silent = BlocklistConfig(url="https://lists.example/drop.txt")
    assert f"| `timeout` | {silent.timeout:g}s |" in page
    assert f"| `max_size` | {silent.max_size // 1024**2}MiB |" in page
    assert silent.label == "lists.example"
    assert silent.interval == 3600
    for key in (*BlocklistConfig.model_fields, *CrowdsecConfig.model_fields):
        assert re.search(rf"`(?:crowdsec\.)?{key}\b", page), key
