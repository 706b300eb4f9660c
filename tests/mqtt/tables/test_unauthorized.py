"""Recording refused clients: nobody waits for it, repeated attempts share a row, queue and table are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.config import UnauthorizedConfig
from proxyproto_rs.mqtt.model.records import UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.store.protocol import StoreError, StoreUnavailable
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore
from proxyproto_rs.mqtt.tables.unauthorized import Unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from proxyproto_rs.mqtt.store.protocol import Store

NOW = 1_000_000.0


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(":memory:")
    yield opened
    await opened.close()


def row(client_id: str = "dev-7", ip: str = "203.0.113.7", **fields: Any) -> UnauthorizedClient:
    values: dict[str, Any] = {
        "ts": int(NOW * 1000),
        "reason_code": "bad-credentials",
        "listener": "tcp",
        **fields,
    }
    return UnauthorizedClient(client_id=client_id, ip_address=ip, **values)


async def test_attempts_are_one_row_with_their_number(store: Store) -> None:
    unauthorized = Unauthorized(store)
    assert [unauthorized.record(row(ts=ts)) for ts in (10, 20)] == [1, 2]
    await unauthorized.flush()
    assert unauthorized.record(row(ts=30, attempts=5)) == 7
    page = await unauthorized.find(UnauthorizedQuery())
    assert [(entry.first_ts, entry.ts, entry.attempts) for entry in page.data] == [(10, 30, 7)]


async def test_a_good_login_clears_its_own_address_only(store: Store) -> None:
    unauthorized = Unauthorized(store)
    unauthorized.record(row(ip="203.0.113.7"))
    unauthorized.record(row(ip="203.0.113.8"))
    await unauthorized.flush()
    unauthorized.cleared("dev-7", "203.0.113.7")
    page = await unauthorized.find(UnauthorizedQuery())
    assert [entry.ip_address for entry in page.data] == ["203.0.113.8"]
    assert unauthorized.record(row(ip="203.0.113.7")) == 1


async def test_a_login_between_two_failures_leaves_the_second(store: Store) -> None:
    unauthorized = Unauthorized(store)
    unauthorized.record(row(ts=10))
    await unauthorized.flush()
    unauthorized.record(row(ts=20))
    unauthorized.cleared("dev-7", "203.0.113.7")
    unauthorized.record(row(ts=30))
    page = await unauthorized.find(UnauthorizedQuery())
    assert [(entry.first_ts, entry.attempts) for entry in page.data] == [(30, 1)]


async def test_a_strangers_text_is_cut(store: Store) -> None:
    unauthorized = Unauthorized(store)
    unauthorized.record(row("i" * 999, username="u" * 999, reason="r" * 999))
    unauthorized.record(row("i" * 300))
    (entry,) = (await unauthorized.find(UnauthorizedQuery())).data
    assert (len(entry.client_id), len(entry.reason), entry.attempts) == (255, 0, 2)


async def test_a_full_queue_is_counted_and_known_rows_still_grow(store: Store) -> None:
    unauthorized = Unauthorized(store, capacity=2)
    for client_id in ("a", "b", "c", "a"):
        unauthorized.record(row(client_id))
    page = await unauthorized.find(UnauthorizedQuery(sort_property="client_id", sort_order="ASC"))
    assert [(entry.client_id, entry.attempts) for entry in page.data] == [("a", 2), ("b", 1)]
    assert unauthorized.dropped == 1


async def test_disabled_means_no_rows_but_attempts_are_known(store: Store) -> None:
    unauthorized = Unauthorized(store, UnauthorizedConfig(enabled=False))
    assert [unauthorized.record(row()) for _ in range(2)] == [1, 2]
    assert (await unauthorized.find(UnauthorizedQuery())).total_elements == 0


async def test_deleting(store: Store) -> None:
    unauthorized = Unauthorized(store)
    for client_id, ip in (("a", "203.0.113.1"), ("a", "203.0.113.2"), ("b", "203.0.113.1")):
        unauthorized.record(row(client_id, ip))
    assert await unauthorized.delete("a", "203.0.113.2") == 1
    assert await unauthorized.delete("a") == 1
    assert await unauthorized.delete("a") == 0
    assert unauthorized.record(row("a", "203.0.113.1")) == 1
    assert await unauthorized.delete_all() == 2


async def test_old_rows_and_then_the_oldest_go(store: Store) -> None:
    clock = [NOW]
    unauthorized = Unauthorized(store, UnauthorizedConfig(ttl=60, max_rows=3), clock=lambda: clock[0])
    for number in range(10):
        unauthorized.record(row(f"c{number}", ts=int((NOW + number) * 1000)))
    await unauthorized.flush()
    assert await unauthorized.purge() == 7
    assert unauthorized.rows == 3
    clock[0] = NOW + 8 + 60.5
    assert await unauthorized.purge() == 2
    page = await unauthorized.find(UnauthorizedQuery())
    assert [entry.client_id for entry in page.data] == ["c9"]


class Watched:
    """A store that can fail, and that signals when it is asked to purge."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.purged = asyncio.Event()
        self.broken = False
        self.away = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def upsert_unauthorized(self, rows: Sequence[UnauthorizedClient]) -> None:
        if self.broken:
            raise StoreError("disk full")
        self._refuse("rows")
        await self._store.upsert_unauthorized(rows)

    async def clear_unauthorized(self, client_id: str, ip: str) -> None:
        self._refuse("clear")
        await self._store.clear_unauthorized(client_id, ip)

    def _refuse(self, call: str) -> None:
        if self.away:
            raise StoreUnavailable("no answer")
        self.calls.append(call)

    async def purge_unauthorized(self, before: int, max_rows: int) -> int:
        gone = await self._store.purge_unauthorized(before, max_rows)
        if gone:
            self.purged.set()
        return gone


@contextlib.asynccontextmanager
async def running(unauthorized: Unauthorized) -> AsyncIterator[None]:
    task = asyncio.create_task(unauthorized.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "logins-without-end"])
async def test_the_bound_holds_soon_after_a_write(
    busy: bool, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.unauthorized._PURGE_SECONDS", 0.01)
    watched = Watched(store)
    unauthorized = Unauthorized(watched, UnauthorizedConfig(max_rows=5), clock=lambda: NOW)
    async with running(unauthorized):
        for number in range(20):
            unauthorized.record(row(f"c{number}"))
        while busy and not watched.purged.is_set():
            unauthorized.cleared("somebody", "203.0.113.9")
            await asyncio.sleep(0)
        await watched.purged.wait()
    assert (await store.find_unauthorized(UnauthorizedQuery())).total_elements == 5


async def test_what_is_recorded_last_is_written_at_the_end(store: Store) -> None:
    unauthorized = Unauthorized(store)
    async with running(unauthorized):
        unauthorized.record(row())
    assert (await store.find_unauthorized(UnauthorizedQuery())).total_elements == 1


async def test_a_broken_store_costs_rows_and_nothing_else(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(store)
    watched.broken = True
    unauthorized = Unauthorized(watched)
    unauthorized.record(row(attempts=3))
    await unauthorized.flush()
    assert unauthorized.dropped == 3
    assert "unauthorized clients are not recorded: disk full" in caplog.text
    watched.broken = False
    unauthorized.record(row())
    assert (await unauthorized.find(UnauthorizedQuery())).total_elements == 1


async def test_what_a_store_does_not_take_waits_in_its_order(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(store)
    unauthorized = Unauthorized(watched)
    watched.away = True
    for number in range(3):
        unauthorized.record(row("gone", ts=number))
        await unauthorized.flush()
        unauthorized.record(row("stays", ts=number))
        await unauthorized.flush()
        unauthorized.cleared("gone", "203.0.113.7")
        await unauthorized.flush()
    watched.away = False
    page = await unauthorized.find(UnauthorizedQuery())
    assert [(entry.client_id, entry.attempts) for entry in page.data] == [("stays", 3)]
    assert watched.calls == ["rows", "rows", "clear"] * 3
    assert unauthorized.dropped == 0
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "unauthorized clients wait to be recorded: no answer",
        "unauthorized clients are recorded again",
    ]


async def test_the_oldest_goes_first_where_there_is_no_room(store: SqliteStore) -> None:
    watched = Watched(store)
    unauthorized = Unauthorized(watched, capacity=2)
    watched.away = True
    for number in range(6):
        unauthorized.record(row(f"c{number}", ts=number, attempts=10**number))
        await unauthorized.flush()
    watched.away = False
    page = await unauthorized.find(UnauthorizedQuery())
    assert [entry.client_id for entry in page.data] == ["c5", "c4", "c3", "c2"]
    assert unauthorized.dropped == 11


async def test_it_tries_again_by_itself(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.unauthorized._AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("proxyproto_rs.mqtt.tables.unauthorized._PURGE_SECONDS", 0.01)
    watched = Watched(store)
    unauthorized = Unauthorized(watched, UnauthorizedConfig(max_rows=1))
    watched.away = True
    async with running(unauthorized):
        unauthorized.record(row("a"))
        unauthorized.record(row("b"))
        await unauthorized.flush()
        watched.away = False
        await watched.purged.wait()
    assert watched.calls == ["rows"]


async def test_what_waits_at_the_end_is_counted(store: SqliteStore) -> None:
    watched = Watched(store)
    watched.away = True
    unauthorized = Unauthorized(watched)
    async with running(unauthorized):
        unauthorized.record(row(attempts=3))
    assert unauthorized.dropped == 3


async def test_ten_thousand_failures_from_a_thousand_addresses(tmp_path: Path) -> None:
    """Rows, attempts and addresses are right at once; the queue holds no more than its bound."""
    store = SqliteStore(str(tmp_path / "broker.db"))
    unauthorized = Unauthorized(store, clock=time.time)
    tracemalloc.start()
    async with running(unauthorized):
        for number in range(10_000):
            address = f"10.0.{number % 1000 // 250}.{number % 250}"
            unauthorized.record(row(f"dev-{number % 1000}", address, ts=number))
            if number % 100 == 99:
                await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        query = UnauthorizedQuery(page_size=1000, sort_property="ts", sort_order="ASC")
        page = await unauthorized.find(query)
    await store.close()
    assert page.total_elements == 1000
    assert {entry.attempts for entry in page.data} == {10}
    assert {(entry.client_id, entry.ip_address) for entry in page.data} == {
        (f"dev-{n}", f"10.0.{n // 250}.{n % 250}") for n in range(1000)
    }
    assert (page.data[0].first_ts, page.data[0].ts) == (0, 9000)
    assert unauthorized.dropped == 0
    assert peak < 16 * 1024 * 1024


def test_a_record_is_a_value() -> None:
    assert dataclasses.replace(row(), attempts=2) != row()
    with pytest.raises(ValueError, match="page_size must be between 1 and 1000"):
        UnauthorizedQuery(page_size=0)
    with pytest.raises(ValueError, match="sort_property must be one of ts, client_id"):
        UnauthorizedQuery(sort_property="password")
