"""What follows from each refusal, login, end and denial: row, count, ban, log line, audit line."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import Header, Refusal
from proxyproto_rs.mqtt.config import AutoBlockConfig
from proxyproto_rs.mqtt.model.connection import Connection, TlsInfo
from proxyproto_rs.mqtt.model.events import RefusedClient
from proxyproto_rs.mqtt.model.reasons import REASONS, counts_for_block
from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.model.session_record import SessionRecord, Traffic
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore
from proxyproto_rs.mqtt.tables.blocks.auto_block import AutoBlock
from proxyproto_rs.mqtt.tables.blocks.blocked import Blocked
from proxyproto_rs.mqtt.tables.unauthorized import Unauthorized
from proxyproto_rs.mqtt.telling.analytics import Analytics
from proxyproto_rs.mqtt.telling.audit import AuditLog
from proxyproto_rs.mqtt.telling.metrics import Metrics
from proxyproto_rs.mqtt.telling.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

V4 = ("203.0.113.7", 50123)
PROXY = ("10.0.0.9", 41234)
NOW = 1_000_000.0


class Parts:
    """A recorder and everything it tells."""

    def __init__(self, store: SqliteStore, audit: Path) -> None:
        self.now = NOW
        self.unauthorized = Unauthorized(store, clock=self.clock)
        self.blocked = Blocked(store, clock=self.clock)
        self.auto_block = AutoBlock(self.blocked, store, AutoBlockConfig(enabled=True, max_failures=2))
        self.audit = AuditLog(audit, node="n1", clock=self.clock)
        self.metrics = Metrics()
        self.analytics = Analytics()
        self.recorder = Recorder(
            unauthorized=self.unauthorized,
            blocked=self.blocked,
            auto_block=self.auto_block,
            audit=self.audit,
            metrics=self.metrics,
            analytics=self.analytics,
            node_id="n1",
            clock=self.clock,
        )
        self._file = audit

    def clock(self) -> float:
        return self.now

    async def rows(self) -> Sequence[UnauthorizedClient]:
        return (await self.unauthorized.find(UnauthorizedQuery())).data

    def said(self) -> list[dict[str, Any]]:
        """The audit log; nothing is written to it afterwards."""
        self.audit.close()
        return [json.loads(line) for line in self._file.read_text().splitlines()]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    store = SqliteStore(":memory:")
    made = Parts(store, tmp_path / "audit.log")
    yield made
    made.audit.close()
    await store.close()


def connection(client: Any = V4, proxy: Any = PROXY, **changes: Any) -> Connection:
    values: dict[str, Any] = {
        "session_id": "5",
        "listener": "ssl",
        "client": client,
        "proxy": proxy,
        "destination": ("198.51.100.1", 8883),
        "header": None if proxy is None else Header.v2(V4, ("198.51.100.1", 8883)),
        "address_source": "header",
        **changes,
    }
    return Connection(**values)


def refused(reason: str = "bad-credentials", **changes: Any) -> RefusedClient:
    values: dict[str, Any] = {"connection": connection(), "client_id": "dev-7", **changes}
    return RefusedClient(reason=reason, **values)


def refusal(reason: str = "denied", **changes: Any) -> Refusal:
    values: dict[str, Any] = {
        "peer": PROXY,
        "client": V4,
        "detail": "in the deny list",
        "first_bytes": b"",
        "listener": "127.0.0.1:1883",
        "count": 1,
        "time": NOW,
        **changes,
    }
    return Refusal(reason=reason, **values)


def session(**changes: Any) -> SessionRecord:
    values: dict[str, Any] = {
        "client_id": "dev-7",
        "username": "u",
        "connection": connection(),
        "traffic": Traffic(bytes_in=812, bytes_out=96),
        "node_id": "n1",
        "clean_start": True,
        "keep_alive_seconds": 60,
        "session_expiry_interval": 0,
        "connected_at": 1000,
        "login_seconds": 0.02,
        **changes,
    }
    return SessionRecord(**values)


async def test_a_refused_client_is_a_row(parts: Parts) -> None:
    parts.recorder.refused(
        refused(
            connection=connection(tls=TlsInfo("proxy", "TLSv1.3", None, None, None, False)),
            username="u",
            password_provided=True,
            detail="an auth plugin said no",
        )
    )
    assert await parts.rows() == (
        UnauthorizedClient(
            client_id="dev-7",
            ip_address="203.0.113.7",
            ts=int(NOW * 1000),
            username="u",
            password_provided=True,
            tls_used=True,
            reason="an auth plugin said no",
            first_ts=int(NOW * 1000),
            attempts=1,
            reason_code="bad-credentials",
            listener="ssl",
            proxy_address="10.0.0.9",
            address_source="header",
            port=50123,
            node_id="n1",
        ),
    )


GATE = [
    "bad-credentials", "auth-error", "blocked", "access-denied", "cert-required", "protocol-version",
    "identifier-rejected", "malformed-connect", "no-connect", "closed-early", "tls-failed", "ws-failed",
    "too-many-sessions", "busy", "packet-too-large", "upstream-unavailable", "upstream-refused", "broker-error",
]  # fmt: skip
COUNTED = ["bad-credentials", "cert-required", "malformed-connect"]
UNRECORDED = [
    "rate-limited", "too-many-from-client", "too-many", "pending-overflow", "too-many-sessions", "busy",
]  # fmt: skip
ACCEPTOR = [
    "untrusted", "missing-header", "malformed", "oversized", "bad-checksum", "timeout", "unexpected-header",
    "version-not-allowed", "tls-required", "denied", "rate-limited", "too-many-from-client", "too-many",
    "pending-overflow", "closed-early", "cert-required",
]  # fmt: skip


def test_the_table_of_reasons_is_the_specifications() -> None:
    assert set(REASONS) == {*GATE, *ACCEPTOR}
    assert [code for code, reason in REASONS.items() if not reason.recorded] == UNRECORDED
    assert [code for code in REASONS if counts_for_block(code)] == COUNTED
    assert {code: reason.connack for code, reason in REASONS.items() if reason.connack is not None} == {
        "bad-credentials": 5,
        "auth-error": 3,
        "blocked": 5,
        "access-denied": 5,
        "cert-required": 5,
        "protocol-version": 1,
        "identifier-rejected": 2,
        "too-many-sessions": 3,
        "upstream-unavailable": 3,
        "broker-error": 3,
    }


@pytest.mark.parametrize("reason", GATE)
async def test_each_reason_of_the_gate(reason: str, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    parts.recorder.refused(refused(reason))
    recorded = reason not in UNRECORDED
    assert [row.reason_code for row in await parts.rows()] == ([reason] if recorded else [])
    assert (f"refused client=203.0.113.7:50123 reason={reason} listener=ssl" in caplog.text) == recorded
    assert parts.metrics.connects == {("ssl", reason): 1}
    assert [(line["event"], line["reason"]) for line in parts.said()] == [("client.refused", reason)]


@pytest.mark.parametrize("reason", GATE)
async def test_which_reasons_ban(reason: str, parts: Parts) -> None:
    for _ in range(2):
        parts.recorder.refused(refused(reason))
    assert (parts.blocked.match_address("203.0.113.7") is not None) == (reason in COUNTED)


@pytest.mark.parametrize(
    ("detail", "counts"), [("bad-certificate: expired", True), ("wrong-version", False), ("timeout", False)]
)
async def test_of_the_tls_failures_only_a_bad_certificate_counts(
    detail: str, counts: bool, parts: Parts
) -> None:
    for _ in range(2):
        parts.recorder.refused(refused("tls-failed", detail=detail))
    assert (parts.blocked.match_address("203.0.113.7") is not None) == counts
    (row,) = await parts.rows()
    assert (row.reason_code, row.reason, row.tls_used) == ("tls-failed", detail, True)


async def test_a_quiet_one_is_counted_and_nothing_else(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts.recorder.refused(refused("closed-early", quiet=True))
    assert parts.metrics.connects == {("ssl", "closed-early"): 1}
    assert await parts.rows() == ()
    assert caplog.text == ""
    assert parts.said() == []


async def test_the_proxy_itself_is_never_banned(parts: Parts) -> None:
    parts.auto_block.config = AutoBlockConfig(enabled=True, max_failures=1, direct=True)
    health_check = connection(PROXY, PROXY, header=Header.local(), address_source="peer")
    parts.recorder.refused(refused(connection=health_check))
    assert list(parts.blocked.count_by_type().values()) == [0, 0, 0, 0]


async def test_the_log_line_knows_the_attempts(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        parts.recorder.refused(refused())
    assert " attempts=3 " in caplog.messages[-1]


async def test_a_login_clears_its_row_forgives_and_is_told(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    parts.recorder.refused(refused())
    parts.recorder.refused(refused(connection=connection(("203.0.113.8", 1))))
    parts.recorder.connected(session())
    parts.recorder.refused(refused("bad-credentials", client_id="other"))
    assert {(row.client_id, row.ip_address) for row in await parts.rows()} == {
        ("other", "203.0.113.7"),
        ("dev-7", "203.0.113.8"),
    }
    assert parts.blocked.match_address("203.0.113.7") is None
    assert parts.metrics.connects["ssl", "accepted"] == 1
    assert parts.metrics.listener("ssl").connect_seconds.total == 0.02
    assert "connected client=203.0.113.7:50123 listener=ssl proxy=10.0.0.9:41234 v=2" in caplog.text
    line = next(line for line in parts.said() if line["event"] == "client.connected")
    assert (line["client"], line["proxy"], line["proxyVersion"], line["sessionId"], line["clientId"]) == (
        {"ip": "203.0.113.7", "port": 50123},
        {"ip": "10.0.0.9", "port": 41234},
        2,
        "5",
        "dev-7",
    )


async def test_a_proxy_that_was_seen_cannot_be_blocked(parts: Parts) -> None:
    parts.recorder.connected(session())
    with pytest.raises(ValueError, match="would block the trusted proxy"):
        await parts.blocked.add(BlockedClient(type="IP_ADDRESS", value="10.0.0.9"))


async def test_an_end_is_told(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    parts.recorder.disconnected(session(disconnected_at=91_500, disconnect_reason="keep-alive", detail="why"))
    assert caplog.messages == [
        "disconnected client=203.0.113.7:50123 reason=keep-alive listener=ssl seconds=90 in=812 out=96"
        ' id="dev-7"'
    ]
    assert parts.metrics.disconnects == {("ssl", "keep-alive"): 1}
    assert (parts.metrics.listener("ssl").bytes_in, parts.metrics.listener("ssl").bytes_out) == (812, 96)
    (line,) = parts.said()
    assert (line["event"], line["reason"], line["detail"]) == ("client.disconnected", "keep-alive", "why")
    assert (line["duration"], line["bytesIn"], line["bytesOut"]) == (90, 812, 96)


async def test_a_denial_is_told_once_a_minute(parts: Parts) -> None:
    for second in (0, 59, 60):
        parts.now = NOW + second
        parts.recorder.denied(session(), "publish", "secret/x")
    parts.recorder.denied(session(), "subscribe", "secret/#")
    assert parts.metrics.acl_denied == {"publish": 3, "subscribe": 1}
    assert [(line["event"], line["topic"]) for line in parts.said()] == [
        ("publish.denied", "secret/x"),
        ("publish.denied", "secret/x"),
        ("subscribe.denied", "secret/#"),
    ]
    assert await parts.rows() == ()


@pytest.mark.parametrize("reason", ACCEPTOR)
async def test_each_reason_of_the_acceptor(reason: str, parts: Parts) -> None:
    parts.recorder.refused_by_acceptor("tcp", (), refusal(reason, count=4))
    rows = await parts.rows()
    if reason in UNRECORDED:
        assert rows == ()
    else:
        (row,) = rows
        assert (row.client_id, row.ip_address, row.port, row.attempts) == ("", "203.0.113.7", 50123, 4)
        assert (row.reason_code, row.reason, row.listener) == (reason, "in the deny list", "tcp")
        assert (row.proxy_address, row.address_source) == ("10.0.0.9", "header")
    assert parts.analytics.top("refused", NOW)[0].count == 4.0


async def test_without_a_header_the_peer_is_the_address(parts: Parts) -> None:
    parts.recorder.refused_by_acceptor(
        "tcp", (), refusal("untrusted", client=None, peer=("::ffff:192.0.2.9", 7, 0, 0))
    )
    (row,) = await parts.rows()
    assert (row.ip_address, row.port, row.proxy_address, row.address_source) == ("192.0.2.9", 7, None, "peer")
    parts.recorder.flush(everything=True)
    (line,) = parts.said()
    assert (line["client"], line["proxy"]) == ({"ip": "192.0.2.9", "port": 7}, None)


async def test_a_block_is_recorded_as_blocked_and_the_operators_deny_as_denied(parts: Parts) -> None:
    await parts.blocked.add(BlockedClient(type="IP_ADDRESS", value="203.0.113.0/24"))
    parts.recorder.refused_by_acceptor("tcp", (), refusal(count=3))
    parts.recorder.refused_by_acceptor("tcp", (), refusal(client=("198.51.100.7", 1)))
    assert {(row.ip_address, row.reason_code) for row in await parts.rows()} == {
        ("203.0.113.7", "blocked"),
        ("198.51.100.7", "denied"),
    }
    assert parts.metrics.block_hits == {"IP_ADDRESS": 3}
    block = parts.blocked.get("IP_ADDRESS:203.0.113.0/24")
    assert block is not None
    assert (block.hits, block.last_hit_at) == (3, int(NOW * 1000))


async def test_a_trusted_proxy_that_closes_early_leaves_no_row(parts: Parts) -> None:
    trusted = {"10.0.0.9"}
    early = refusal("closed-early", client=None)
    parts.recorder.refused_by_acceptor("tcp", trusted, early)
    parts.recorder.refused_by_acceptor("tcp", trusted, dataclasses.replace(early, peer=("192.0.2.1", 1)))
    assert [row.ip_address for row in await parts.rows()] == ["192.0.2.1"]


async def test_refusals_are_one_audit_line_for_an_address_and_ten_seconds(parts: Parts) -> None:
    for second, count in ((0, 1), (9, 5), (10, 1)):
        parts.now = NOW + second
        parts.recorder.refused_by_acceptor("tcp", (), refusal(count=count))
        parts.recorder.flush()
    parts.recorder.flush(everything=True)
    told = [(line["event"], line["reason"], line["client"]["ip"], line["count"]) for line in parts.said()]
    assert told == [
        ("connection.refused", "denied", "203.0.113.7", 6),
        ("connection.refused", "denied", "203.0.113.7", 1),
    ]


async def test_each_listener_has_its_own_audit_line_for_an_address(parts: Parts) -> None:
    for listener in ("tcp", "ssl", "ssl"):
        parts.recorder.refused_by_acceptor(listener, (), refusal())
    parts.recorder.flush(everything=True)
    told = {(line["listener"], line["client"]["ip"], line["count"]) for line in parts.said()}
    assert told == {("tcp", "203.0.113.7", 1), ("ssl", "203.0.113.7", 2)}


async def test_what_the_plugins_take_is_measured(parts: Parts) -> None:
    parts.recorder.asked(0.004)
    assert parts.metrics.auth_seconds.cumulative()[:3] == [("0.0005", 0), ("0.001", 0), ("0.005", 1)]


async def test_a_broken_store_and_a_full_disk_stop_nobody(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "broker.db"))
    parts = Parts(store, Path("/dev/full"))
    await store.close()
    for _ in range(100):
        parts.recorder.refused(refused())
        parts.recorder.connected(session())
        parts.recorder.refused_by_acceptor("tcp", (), refusal())
    await parts.unauthorized.flush()
    await parts.auto_block.share(NOW)
    parts.audit.close()
    assert parts.unauthorized.dropped > 0
    assert parts.audit.dropped == 200
