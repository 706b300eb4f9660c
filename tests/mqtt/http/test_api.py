"""The API: TBMQ's calls with its names, and ours."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import CLIENT, OTHER, PINGREQ, PINGRESP, connack, connect, dial, log_in, running
from proxyproto_rs.mqtt import BlockedClient
from proxyproto_rs.mqtt.http import matching
from proxyproto_rs.mqtt.model.paging import MAX_PAGE_SIZE

from .asking import READ_TOKEN, TOKEN, serving
from .many import fill

if TYPE_CHECKING:
    from pathlib import Path

    from proxyproto_rs.mqtt.model.login import Login


async def test_health_and_readiness_need_no_token() -> None:
    async with serving() as (broker, api):
        assert (await api.ask("GET", "/healthz", token=None)).json["status"] == "ok"
        assert (await api.ask("GET", "/readyz", token=None)).json == {"status": "ready", "notReady": []}
        broker.service._ticked -= 60  # as if the loop had stood still
        late = await api.ask("GET", "/healthz", token=None)
        assert (late.status, late.json["status"]) == (503, "late")


async def test_readiness_says_what_is_missing() -> None:
    async with serving() as (broker, api):
        listener = broker.service.listening["tcp"].listener
        assert listener is not None
        listener.close()
        answer = await api.ask("GET", "/readyz", token=None)
        assert (answer.status, answer.json["notReady"]) == (503, ["listener tcp is closed"])


async def test_a_store_that_cannot_be_written_is_not_ready(tmp_path: Path) -> None:
    async with serving(store=f"sqlite:{tmp_path}/broker.db") as (broker, api):
        await broker.service._readiness._store.close()
        answer = await api.ask("GET", "/readyz", token=None)
        assert answer.status == 503
        assert answer.json["notReady"][0].startswith("the store cannot be written: ")


async def test_metrics() -> None:
    async with serving() as (_, api):
        answer = await api.ask("GET", "/metrics", token=None)
        assert answer.status == 200
        assert 'proxyproto_connections_total{listener="tcp",outcome="v2"} 0.0' in answer.text
    async with serving({"metrics_auth": True}) as (_, api):
        await api.fails(401, "GET", "/metrics", token=None)
        assert (await api.ask("GET", "/metrics", token=READ_TOKEN)).status == 200


async def test_the_metrics_count_a_refused_client_at_once() -> None:
    async with serving() as (broker, api):
        async with log_in(broker.address(), connect("guess", password=b"x")) as client:
            assert client.connack == connack(5)
        answer = await api.ask("GET", "/metrics", token=None)
        assert "\nproxyproto_mqtt_unauthorized_clients 1.0\n" in answer.text


async def test_sessions_as_tbmq_lists_them() -> None:
    async with (
        serving() as (broker, api),
        log_in(broker.address(), connect("dev-1")),
        log_in(broker.address(), connect("dev-2"), source=OTHER),
    ):
        page = {"pageSize": 10, "page": 0}
        rows = await api.get("/api/v2/client-session", **page, sortProperty="clientId", sortOrder="ASC")
        assert [(row["clientId"], row["clientIpAdr"]) for row in rows["data"]] == [
            ("dev-1", "192.0.2.10"),
            ("dev-2", "198.51.100.7"),
        ]
        assert (rows["totalPages"], rows["totalElements"], rows["hasNext"]) == (1, 2, False)
        for filters in (
            {"clientIpAddress": "198.51.100.0/24"},
            {"clientIpAddress": "198.51"},
            {"textSearch": "DEV-2"},
            {
                "clientIpAddress": "198.51.100.7",
                "connectedStatusList": "CONNECTED,DISCONNECTED",
                "proxyVersion": 2,
            },
        ):
            found = await api.get("/api/client-session", **page, **filters)
            assert [row["clientId"] for row in found["data"]] == ["dev-2"], filters
        assert (await api.get("/api/v2/client-session", **page, cleanStartList="false"))["totalElements"] == 0
        assert (await api.get("/api/v2/client-session", pageSize=1))["hasNext"] is True
        one = await api.get("/api/client-session", clientId="dev-1")
        assert (one["clientPort"], one["subscriptions"]) == (50123, [])
        assert await api.get("/api/client-session/info") == {
            "connectedCount": 2,
            "disconnectedCount": 0,
            "totalCount": 2,
        }
        assert "dev-3" in await api.fails(404, "GET", "/api/client-session", clientId="dev-3")


async def test_disconnect_and_remove(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with (
        serving(audit={"file": str(audit)}) as (broker, api),
        log_in(broker.address(), connect("dev", clean_session=False)) as client,
    ):
        (row,) = (await api.get("/api/v2/client-session"))["data"]
        assert "connected" in await api.fails(409, "DELETE", "/api/client-session/remove", clientId="dev")
        other = {"clientId": "dev", "sessionId": "another"}
        await api.fails(404, "DELETE", "/api/client-session/disconnect", **other)
        assert await client.ask(PINGREQ) == PINGRESP
        named = {"clientId": "dev", "sessionId": row["sessionId"]}
        assert (await api.ask("DELETE", "/api/client-session/disconnect", **named)).json == {"count": 1}
        assert await client.end() == b""
        await api.fails(404, "DELETE", "/api/client-session/disconnect", **named)
        await api.fails(404, "DELETE", "/api/client-session/remove", **other)
        assert (await api.ask("DELETE", "/api/client-session/remove", **named)).status == 200
        assert (await api.get("/api/client-session/info"))["totalCount"] == 0
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    by = {line["event"]: line["by"] for line in lines if "by" in line}
    assert by == {"session.disconnect": "api@127.0.0.1", "session.remove": "api@127.0.0.1"}


async def test_many_are_disconnected_by_a_filter() -> None:
    async with (
        serving() as (broker, api),
        log_in(broker.address(), connect("dev-1")) as one,
        log_in(broker.address(), connect("dev-2")) as two,
        log_in(broker.address(), connect("dev-3"), source=OTHER) as three,
    ):
        path = "/api/v2/client-session/disconnect"
        for nothing in ({}, {"username": ""}, {"connectedStatusList": ""}, {"pageSize": 10}):
            assert "filter" in await api.fails(400, "DELETE", path, **nothing)
        assert (await api.ask("DELETE", path, clientIpAddress="192.0.2.0/24")).json == {"count": 2}
        assert (await one.end(), await two.end()) == (b"", b"")
        assert await three.ask(PINGREQ) == PINGRESP


async def test_more_than_a_page_is_disconnected_by_a_filter_with_a_cursor() -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("other")) as other:
        fill(broker.service, 2 * MAX_PAGE_SIZE)
        cursor = (await api.get("/api/v2/client-session", pageSize=1))["cursor"]
        path = "/api/v2/client-session/disconnect"
        found = await api.ask("DELETE", path, listenerList="tcp", cursor=cursor)
        assert found.json == {"count": 1}, "all that match, wherever the page of the cursor begins"
        assert await other.end() == b""


SESSIONS, REFUSED = "/api/v2/client-session/block", "/api/unauthorized/client/v2/block"


async def test_the_addresses_of_sessions_that_match_are_blocked(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with (
        serving(audit={"file": str(audit)}) as (broker, api),
        log_in(broker.address(), connect("dev-1")) as one,
        log_in(broker.address(), connect("bot-2")) as two,
        log_in(broker.address(), connect("bot-3"), source=("192.0.2.11", 1)) as three,
        log_in(broker.address(), connect("dev-4"), source=OTHER) as four,
    ):
        seen = await api.get(f"{SESSIONS}/preview", token=READ_TOKEN, textSearch="bot-")
        assert sorted(seen.pop("examples")) == ["bot-2", "bot-3", "dev-1"]
        assert seen == {"addresses": 2, "sessions": 3, "users": 1, "more": False}
        assert broker.service.sessions.connected == 4, "a look changes nothing"
        later = int(time.time() * 1000) + 3_600_000
        asked: Any = {"json": {"expirationTime": later, "description": "bots"}, "textSearch": "bot-"}
        await api.fails(403, "POST", SESSIONS, token=READ_TOKEN, **asked)
        assert (await api.ask("POST", SESSIONS, **asked)).json == {"count": 2, "more": False}
        assert (await one.end(), await two.end(), await three.end()) == (b"", b"", b"")
        assert await four.ask(PINGREQ) == PINGRESP
        rows = (await api.get("/api/blockedClient"))["data"]
        assert sorted(row["value"] for row in rows) == ["192.0.2.10", "192.0.2.11"]
        assert {(row["expirationTime"], row["description"]) for row in rows} == {(later, "bots")}
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["by"] for line in lines if line["event"] == "block.added"] == ["api@127.0.0.1"] * 2


async def test_the_addresses_of_refused_clients_that_match_are_blocked() -> None:
    async with serving() as (broker, api):
        for client_id, source in (("a", OTHER), ("b", OTHER), ("c", ("203.0.113.9", 1)), ("d", CLIENT)):
            async with log_in(broker.address(), connect(client_id, password=b"x"), source=source):
                pass
        async with dial(broker.address(), b"\x10\x0c\0\x04MQTT", header=b"") as proxy:
            assert await proxy.end() == b"", "a proxy that forgot the header is refused, and recorded"
        await broker.rows(5)
        block = BlockedClient(type="IP_ADDRESS", value="203.0.113.0/24", description="known")
        await broker.service.blocked.add(block)
        assert (await api.get(f"{REFUSED}/preview", listener="tcp"))["addresses"] == 3, "not the proxy"
        filters: Any = {"reasonCode": "bad-credentials", "listener": "tcp"}
        never = {"expirationTime": 2**63}
        assert "expirationTime" in await api.fails(400, "POST", REFUSED, json=never, **filters)
        late = {"expirationTime": 1}
        assert "in the past" in await api.fails(400, "POST", REFUSED, json=late, **filters)
        for body, count in (({"expirationTime": int(time.time() * 1000) + 60_000}, 2), ({}, 2), ({}, 0)):
            # What lasts as long stays; what ends sooner is prolonged.
            answer = (await api.ask("POST", REFUSED, json=body, **filters)).json
            assert answer == {"count": count, "more": False}
        rows = (await api.get("/api/blockedClient"))["data"]
        assert {row["value"]: (row["expirationTime"], row["description"]) for row in rows} == {
            "203.0.113.0/24": (0, "known"),
            OTHER[0]: (0, None),
            CLIENT[0]: (0, None),
        }


async def test_one_request_blocks_a_bounded_number_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (broker, api):
        fill(broker.service, 2 * matching.ADDRESSES)
        seen = await api.get(f"{SESSIONS}/preview", clientIpAddress="10.0.0.0/8")
        assert (seen["addresses"], seen["more"]) == (matching.ADDRESSES, True)
        few = await api.get(f"{SESSIONS}/preview", clientIpAddress="10.0.1.0/24")
        assert (few["addresses"], few["sessions"], few["users"], few["more"]) == (256, 256, 256, False)
        answer = (await api.ask("POST", SESSIONS, json={}, clientIpAddress="10.0.0.0/8")).json
        assert answer == {"count": matching.ADDRESSES, "more": True}
        assert broker.service.blocked.count_by_type()["IP_ADDRESS"] == matching.ADDRESSES
        monkeypatch.setattr(matching, "ROWS", MAX_PAGE_SIZE)
        few = await api.get(f"{SESSIONS}/preview", clientIpAddress="10.0.0.0/8")
        assert (few["addresses"], few["more"]) == (MAX_PAGE_SIZE, True), "rows are bounded too"


async def test_blocks_that_match_are_removed(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    async with serving(audit={"file": str(audit)}) as (broker, api):
        for value in ("203.0.113.1", "203.0.113.2", "198.51.100.9"):
            await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=value))
        path: Any = ("DELETE", "/api/blockedClient/v2")
        await api.fails(403, *path, token=READ_TOKEN, value="203.0.113.")
        assert "remove every block" in await api.fails(400, *path, value="")
        assert (await api.ask(*path, value="203.0.113.")).json == {"count": 2}
        (left,) = (await api.get("/api/blockedClient"))["data"]
        assert left["value"] == "198.51.100.9"
        assert (await api.ask(*path, value="203.0.113.")).json == {"count": 0}
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["by"] for line in lines if line["event"] == "block.removed"] == ["api@127.0.0.1"] * 2


@pytest.mark.parametrize("path", [SESSIONS, REFUSED])
async def test_nobody_is_blocked_without_a_filter(path: str) -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev")):
        for nothing in ({}, {"username": ""}, {"sortOrder": "ASC", "page": 0}):
            assert "name a filter" in await api.fails(400, "GET", f"{path}/preview", **nothing)
            assert "name a filter" in await api.fails(400, "POST", path, json={}, **nothing)
        assert not broker.service.blocked.count_by_type()["IP_ADDRESS"]


async def test_unauthorized_clients_as_tbmq_lists_them() -> None:
    path = "/api/unauthorized/client"
    async with serving() as (broker, api):
        for client_id, source in (("a", ("192.0.2.1", 1)), ("a", OTHER), ("b", OTHER)):
            async with log_in(
                broker.address(), connect(client_id, password=b"wrong"), source=source
            ) as client:
                assert client.connack == connack(5)
        await broker.rows(3)
        page = {"pageSize": 10, "page": 0}
        assert (await api.get(path, **page))["totalElements"] == 3
        for filters, count in (
            ({"ipAddress": "198.51.100.0/24"}, 2),
            ({"ipAddress": "198.51"}, 2),
            ({"clientId": "a", "reasonCode": "bad-credentials"}, 2),
            ({"passwordProvidedList": "false"}, 0),
            ({"passwordProvidedList": "true,false", "tlsUsedList": "false"}, 3),
            ({"startTime": int(time.time() * 1000) + 60_000}, 0),
        ):
            assert (await api.get(f"{path}/v2", **page, **filters))["totalElements"] == count, filters
        newest = await api.get(path, clientId="a")
        assert (newest["ipAddress"], newest["reasonCode"]) == ("198.51.100.7", "bad-credentials")
        await api.fails(404, "GET", path, clientId="c")
        assert (await api.ask("DELETE", path, clientId="a", ipAddress="192.0.2.1")).json == {"count": 1}
        await api.fails(404, "DELETE", path, clientId="a", ipAddress="192.0.2.1")
        assert (await api.ask("DELETE", path, ipAddress="198.51.100.7")).json == {"count": 2}
        assert (await api.ask("DELETE", path)).json == {"count": 0}


async def test_blocks_as_tbmq_posts_and_deletes_them() -> None:
    path = "/api/blockedClient"
    async with serving() as (broker, api), log_in(broker.address(), connect("dev")) as client:
        later = int(time.time() * 1000) + 3_600_000
        body: dict[str, Any] = {"type": "IP_ADDRESS", "ipAddress": "192.0.2.0/24", "expirationTime": later}
        made = (await api.ask("POST", path, json={**body, "description": "noisy"})).json
        assert (made["value"], made["status"], made["description"]) == ("192.0.2.0/24", "ACTIVE", "noisy")
        assert await client.end() == b"", "a block ends what it covers"
        async with dial(broker.address(), connect("dev").encode()) as refused:
            assert await refused.end() == b""
        await api.ask(
            "POST", path, json={"type": "REGEX", "pattern": "x.*", "regexMatchTarget": "BY_CLIENT_ID"}
        )
        assert (await api.get(path, pageSize=10, page=0))["totalElements"] == 2
        (row,) = (await api.get(f"{path}/v2", typeList="IP_ADDRESS,USERNAME", value="192"))["data"]
        assert (row["expirationTime"], row["createdBy"]) == (later, "api")
        assert await api.get(f"{path}/ttl") == 7 * 24 * 60
        named: dict[str, Any] = {"type": "IP_ADDRESS", "value": "192.0.2.0/24"}
        assert (await api.ask("DELETE", path, **named)).json == {"count": 1}
        await api.fails(404, "DELETE", path, **named)
        pattern: dict[str, Any] = {"type": "REGEX", "value": "x.*", "regexMatchTarget": "BY_CLIENT_ID"}
        assert (await api.ask("DELETE", path, **pattern)).status == 200


REFUSED_BLOCKS = [
    (409, {"type": "IP_ADDRESS", "ipAddress": "127.0.0.0/8"}, "would block the trusted proxy 127.0.0.0/8"),
    (400, {"type": "IP_ADDRESS", "ipAddress": "10.0.0.1/8"}, "host bits"),
    (400, {"type": "REGEX", "pattern": "(?=x)", "regexMatchTarget": "BY_CLIENT_ID"}, "value"),
    (400, {"type": "CLIENT_ID", "clientId": "x", "expirationTime": 1}, "in the past"),
    (400, {"type": "CLIENT_ID", "clientId": "x", "expirationTime": 2**63}, "must fit into 64 bits"),
    (400, {"type": "CLIENT_ID"}, "clientId must be text"),
    (400, {"type": "CLIENT_ID", "clientId": "x", "colour": "red"}, "colour: unknown parameter"),
    (400, {"type": "COLOUR"}, "type: "),
    (400, [], "request: "),
]


@pytest.mark.parametrize(
    ("status", "body", "said"), REFUSED_BLOCKS, ids=[said for _, _, said in REFUSED_BLOCKS]
)
async def test_blocks_that_are_refused(status: int, body: Any, said: str) -> None:
    async with serving() as (_, api):
        assert said in await api.fails(status, "POST", "/api/blockedClient", json=body)


PREVIEWS: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({"type": "IP_ADDRESS", "value": "192.0.2.0/24"}, (2, 1, 1)),
    ({"type": "IP_ADDRESS", "value": "198.51.100.7"}, (1, 1, 1)),
    ({"type": "CLIENT_ID", "value": "dev-1"}, (1, 1, 1)),
    ({"type": "USERNAME", "value": "user"}, (3, 1, 2)),
    ({"type": "REGEX", "value": "dev-[12]", "regexMatchTarget": "BY_CLIENT_ID"}, (2, 1, 1)),
    ({"type": "REGEX", "value": "u.*", "regexMatchTarget": "BY_USERNAME"}, (3, 1, 2)),
    ({"type": "REGEX", "value": "198[.].*", "regexMatchTarget": "BY_IP_ADDRESS"}, (1, 1, 1)),
    ({"type": "CLIENT_ID", "value": "nobody"}, (0, 0, 0)),
]


async def test_a_preview_counts_whom_a_block_would_cover_and_changes_nothing() -> None:
    async with (
        serving() as (broker, api),
        log_in(broker.address(), connect("dev-1")),
        log_in(broker.address(), connect("dev-2")),
        log_in(broker.address(), connect("dev-3"), source=OTHER),
    ):
        for named, counts in PREVIEWS:
            seen = await api.get("/api/blockedClient/preview", token=READ_TOKEN, **named)
            assert (seen["sessions"], seen["users"], seen["addresses"]) == counts, named
        proxies = await api.get("/api/blockedClient/preview", type="IP_ADDRESS", value="127.0.0.1")
        assert "trusted proxy" in proxies["refusedBecause"]
        assert broker.service.sessions.connected == 3
        await api.fails(400, "GET", "/api/blockedClient/preview", type="IP_ADDRESS", value="nonsense")


async def test_listeners_say_why_they_refused() -> None:
    async with serving() as (broker, api):
        async with dial(broker.address(), b"\x10\x0c\0\x04MQTT", header=b"") as client:
            assert await client.end() == b""
        await broker.rows(1)
        (port,) = (await api.get("/api/listeners"))["listeners"]
        assert (port["name"], port["proxyProtocol"], port["trusted"]) == ("tcp", "required", ["127.0.0.0/8"])
        assert port["address"] == f"127.0.0.1:{broker.address()[1]}"
        assert port["outcomes"]["missing-header"] == port["refused"] == 1
        (refusal,) = port["lastRefusals"]
        assert (refusal["reason"], refusal["firstBytes"]) == ("missing-header", "10 0c 00 04 4d 51 54 54")
        assert "an MQTT CONNECT" in refusal["detail"]
        assert refusal["remedy"].startswith("switch the header on in the proxy: `send-proxy-v2`")


async def test_a_block_that_refuses_has_a_remedy_too() -> None:
    async with serving() as (broker, api):
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=CLIENT[0]))
        async with dial(broker.address(), connect("dev").encode()) as client:
            assert await client.end() == b""
        await broker.rows(1)
        (port,) = (await api.get("/api/listeners"))["listeners"]
        (refusal,) = port["lastRefusals"]
        assert (refusal["reason"], refusal["client"].partition(":")[0]) == ("blocked", CLIENT[0])
        assert refusal["remedy"].endswith("remove the block")


async def test_overview_top_and_history() -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")):
        async with log_in(broker.address(), connect("dev-2", password=b"wrong"), source=OTHER):
            pass
        counters = await api.get("/api/overview")
        assert (counters["connected"], counters["accepted"], counters["refused"]) == (1, 1, 1)
        assert (counters["access"], counters["nodeId"]) == ("write", "test")
        assert (await api.get("/api/overview", token=READ_TOKEN))["access"] == "read"
        assert await api.get("/api/top", by="refused") == [{"address": "198.51.100.7", "count": 1.0}]
        assert await api.get("/api/top", by="sessions", prefix=24) == [
            {"address": "192.0.2.0/24", "count": 1.0}
        ]
        await api.fails(400, "GET", "/api/top", prefix=25)
        minutes = await api.get("/api/history")
        assert sum(minute["accepted"] for minute in minutes) == 1
        assert minutes[-1]["sessions"] == 1
        (node,) = await api.get("/api/nodes")
        assert (node["nodeId"], node["isThis"]) == ("test", True)


async def test_the_configuration_is_shown_without_secrets() -> None:
    async with serving() as (_, api):
        shown = await api.get("/api/config")
        assert shown["http"]["token"] == shown["http"]["read_token"] == "***"
        assert shown["listeners"]["tcp"]["proxy"]["trusted"] == ["127.0.0.0/8"]
        assert TOKEN not in json.dumps(shown)


async def test_an_answer_that_has_not_changed_is_not_sent_again() -> None:
    async with serving() as (broker, api):
        first = await api.ask("GET", "/api/v2/client-session")
        tag = {"If-None-Match": first.headers["ETag"]}
        again = await api.ask("GET", "/api/v2/client-session", headers=tag)
        assert (again.status, again.text) == (304, "")
        async with log_in(broker.address(), connect("dev")):
            assert (await api.ask("GET", "/api/v2/client-session", headers=tag)).status == 200


WRONG = [
    ("GET", "/api/v2/client-session", {"pageSiz": 3}, "pageSiz: unknown parameter"),
    ("GET", "/api/v2/client-session", {"pageSize": 1001}, "pageSize must be between 1 and 1000"),
    ("GET", "/api/v2/client-session", {"startTime": 2**63}, "startTime must fit into 64 bits"),
    ("GET", "/api/v2/client-session", {"subscriptions": -(2**63)}, "subscriptions must fit into 64 bits"),
    ("GET", "/api/v2/client-session", {"page": 2**62}, "page must be 9223372036854774 or less"),
    ("GET", "/api/unauthorized/client/v2", {"endTime": 10**30}, "endTime must fit into 64 bits"),
    ("GET", "/api/v2/client-session", {"sortProperty": "colour"}, "sortProperty: "),
    ("GET", "/api/v2/client-session", {"clientIpAddress": "10.0.0.1/8"}, "clientIpAddress has host bits set"),
    ("GET", "/api/unauthorized/client/v2", {"ipAddress": "x/8"}, "ipAddress must be an IP address"),
    ("GET", "/api/v2/client-session", {"cleanStartList": "maybe"}, "cleanStartList"),
    ("DELETE", "/api/client-session/remove", {}, "clientId: is needed"),
    ("DELETE", "/api/blockedClient", {"type": "REGEX", "value": "x"}, "regex_match_target"),
]


@pytest.mark.parametrize(("method", "path", "parameters", "said"), WRONG, ids=[said for *_, said in WRONG])
async def test_wrong_parameters_are_named(method: str, path: str, parameters: Any, said: str) -> None:
    async with serving() as (_, api):
        assert said in await api.fails(400, method, path, **parameters)


async def test_what_does_not_exist_and_what_is_too_large() -> None:
    async with serving() as (_, api):
        await api.fails(404, "GET", "/api/nothing")
        not_allowed = await api.ask("PUT", "/api/overview")
        assert (not_allowed.status, not_allowed.headers["Allow"]) == (405, "GET,HEAD")
        body = {"type": "CLIENT_ID", "clientId": "x" * 100_000}
        await api.fails(413, "POST", "/api/blockedClient", json=body)
        form = {"data": b"type=CLIENT_ID", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
        await api.fails(415, "POST", "/api/blockedClient", **form)
        text = {"data": b"{", "headers": {"Content-Type": "application/json"}}
        await api.fails(400, "POST", "/api/blockedClient", **text)
        assert (await api.ask("HEAD", "/api/overview")).text == ""


async def test_a_fault_of_ours_is_told_to_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as (broker, api):
        del broker.service.sources
        assert "log says more" in await api.fails(500, "GET", "/api/overview")
        assert "AttributeError" in caplog.text


async def test_every_answer_is_kept_by_nobody_and_runs_no_foreign_script() -> None:
    async with serving() as (_, api):
        for path in ("/", "/healthz", "/api/overview", "/api/nothing", "/metrics"):
            headers = (await api.ask("GET", path)).headers
            assert headers["Cache-Control"] == "no-store"
            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert "require-trusted-types-for 'script'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Server"] == "proxyproto_rs"


async def test_without_the_section_nothing_is_served() -> None:
    async with running() as broker:
        assert broker.service.http is None


async def test_everything_of_one_address() -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")):
        async with log_in(broker.address(), connect("guess", password=b"x")) as refused:
            assert refused.connack == connack(5)
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="198.51.0.0/16"))
        seen = await api.get("/api/address", ipAddress=f"::ffff:{CLIENT[0]}")
        assert (seen["ipAddress"], seen["network"]) == (CLIENT[0], "192.0.2.0/24")
        assert [row["clientId"] for row in seen["sessions"]["data"]] == ["dev-1"]
        assert [row["clientId"] for row in seen["refused"]["data"]] == ["guess"]
        assert [event["event"] for event in seen["events"]] == ["client.refused", "client.connected"]
        other = await api.get("/api/address", ipAddress=OTHER[0])
        assert [block["value"] for block in other["blocks"]] == ["198.51.0.0/16"]
        assert other["events"] == []
        assert (await api.get("/api/address", ipAddress="2001:db8::7"))["network"] == "2001:db8::/64"
        await api.fails(400, "GET", "/api/address", ipAddress="192.0.2.0/24")


async def test_rows_that_are_blocked_already_are_marked() -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1"), source=OTHER):
        async with log_in(broker.address(), connect("guess", password=b"x")):
            pass
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=CLIENT[0]))
        (row,) = (await api.get("/api/unauthorized/client/v2"))["data"]
        assert row["isBlocked"] is True
        (row,) = (await api.get("/api/v2/client-session"))["data"]
        assert row["isBlocked"] is False


PAGE = {
    "/": "text/html",
    "/favicon.ico": "image/svg+xml",
    "/page/main.js": "text/javascript",
    "/page/style.css": "text/css",
}


async def test_the_page_needs_no_token_and_is_code_only() -> None:
    async with serving() as (_, api):
        for path, kind in PAGE.items():
            answer = await api.ask("GET", path, token=None)
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(kind)
            tag = {"If-None-Match": answer.headers["ETag"]}
            assert (await api.ask("GET", path, token=None, headers=tag)).status == 304
        for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page/nothing.js"):
            assert (await api.ask("GET", path, token=None)).status == 404


def knows(login: Login) -> bool:
    """Know every user, as a plugin of `auth`."""
    return bool(login.username)


async def test_a_broker_of_our_own_behind_is_ready_and_lists_its_sessions() -> None:
    auth = {"plugin": f"{__name__}:knows"}
    behind: dict[str, Any] = {"backend": {"embedded": {}}, "auth": [auth], "amqtt": {}}
    async with serving(**behind) as (broker, api), log_in(broker.address(), connect("dev-1")):
        assert (await api.ask("GET", "/readyz", token=None)).json == {"status": "ready", "notReady": []}
        (row,) = (await api.get("/api/v2/client-session"))["data"]
        assert (row["clientId"], row["clientIpAdr"]) == ("dev-1", CLIENT[0])
        assert (await api.get("/api/listeners"))["listeners"][0]["accepted"] == 1
        gone = await api.ask("DELETE", "/api/client-session/disconnect", clientId="dev-1")
        assert gone.json == {"count": 1}


async def test_servers_that_are_all_down_are_not_ready() -> None:
    servers = {"servers": ["127.0.0.1:1"], "proxy_protocol": "off", "check": {"interval": "50ms", "fall": 1}}
    async with serving(backend={"upstream": servers}, amqtt={}) as (broker, api):
        await broker.until(lambda: not any(server["is_up"] for server in broker.service.sources.servers()))
        answer = await api.ask("GET", "/readyz", token=None)
        assert (answer.status, answer.json["notReady"]) == (503, ["no server of backend.upstream is up"])
        (server,) = (await api.get("/api/listeners"))["upstreams"]
        assert server["isUp"] is False
