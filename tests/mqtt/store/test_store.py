"""The contract of `store.Store`. Another store passes it by being added to the fixture."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.store.opening import open_store
from proxyproto_rs.mqtt.store.protocol import Store, StoreError
from proxyproto_rs.mqtt.store.sqlite.file import sqlite_path
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["file", "memory", "postgresql"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The key `store` of a new, empty store."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("database"))
    return "sqlite::memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'state' / 'broker.db'}"


@pytest.fixture
async def store(setting: str) -> AsyncIterator[Store]:
    opened = await open_store(setting)
    yield opened
    await opened.close()


def row(
    client_id: str = "dev-7", ip: str = "203.0.113.7", ts: int = 1000, **fields: Any
) -> UnauthorizedClient:
    values: dict[str, Any] = {"first_ts": ts, "reason_code": "bad-credentials", "listener": "tcp", **fields}
    return UnauthorizedClient(client_id=client_id, ip_address=ip, ts=ts, **values)


async def found(store: Store, **query: Any) -> list[tuple[str, str]]:
    page = await store.find_unauthorized(UnauthorizedQuery(**query))
    return [(row.client_id, row.ip_address) for row in page.data]


# unauthorized clients


async def test_a_row_comes_back_as_it_went(store: Store) -> None:
    whole = row(
        username="u",
        password_provided=True,
        tls_used=True,
        reason='said "no"',
        attempts=3,
        proxy_address="10.0.0.9",
        address_source="header",
        port=50123,
        node_id="n1",
    )
    await store.upsert_unauthorized([whole, row("", username=None)])
    page = await store.find_unauthorized(UnauthorizedQuery(client_id="dev-7"))
    assert page.data == (whole,)


async def test_the_same_client_id_from_the_same_address_is_one_row(store: Store) -> None:
    await store.upsert_unauthorized([row(ts=1000, reason_code="bad-credentials", username="a")])
    await store.upsert_unauthorized([row(ts=2000, reason_code="auth-error", username="b", attempts=4)])
    page = await store.find_unauthorized(UnauthorizedQuery())
    assert page.data == (
        row(ts=2000, first_ts=1000, attempts=5, reason_code="auth-error", username="b"),
    )  # fmt: skip


async def test_the_same_client_id_from_elsewhere_is_another_row(store: Store) -> None:
    await store.upsert_unauthorized([row(ip="203.0.113.7"), row(ip="203.0.113.8"), row(ip="2001:db8::7")])
    assert len(await found(store)) == 3


async def test_a_good_login_clears_only_its_own_address(store: Store) -> None:
    await store.upsert_unauthorized([row(ip="203.0.113.7"), row(ip="203.0.113.8"), row("dev-8")])
    await store.clear_unauthorized("dev-7", "203.0.113.7")
    await store.clear_unauthorized("nobody", "203.0.113.7")
    assert sorted(await found(store)) == [("dev-7", "203.0.113.8"), ("dev-8", "203.0.113.7")]


FILTERS = [
    ({}, {"a", "b", "c"}),
    ({"client_id": "A"}, {"a"}),
    ({"ip_address": "113"}, {"a", "b"}),
    ({"ip_address": "203.0.113.0/30"}, {"a", "b"}),
    ({"ip_address": "203.0.113.2/31"}, {"b"}),
    ({"ip_address": "2001:db8::/32"}, {"c"}),
    ({"username": "bo"}, {"b"}),
    ({"reason": "wrong"}, {"a"}),
    ({"reason_code": "bad-credentials"}, {"a", "b"}),
    ({"reason_code": "bad"}, set()),
    ({"listener": "ssl"}, {"c"}),
    ({"password_provided_list": (True,)}, {"b"}),
    ({"password_provided_list": (True, False)}, {"a", "b", "c"}),
    ({"tls_used_list": (True,)}, {"c"}),
    ({"start_time": 2000}, {"b", "c"}),
    ({"end_time": 2000}, {"a", "b"}),
    ({"start_time": 1500, "end_time": 2500}, {"b"}),
    ({"text_search": "bob"}, {"b"}),
    ({"text_search": "2001"}, {"c"}),
    ({"text_search": "%"}, set()),
    ({"text_search": "_"}, set()),
    ({"text_search": "\\"}, {"a"}),
    ({"listener": "tcp", "end_time": 1000}, {"a"}),
]


@pytest.mark.parametrize(("query", "names"), FILTERS, ids=[str(query) for query, _ in FILTERS])
async def test_filters(query: dict[str, Any], names: set[str], store: Store) -> None:
    await store.upsert_unauthorized(
        [
            row("a", "203.0.113.1", 1000, reason="wrong\\password"),
            row("b", "203.0.113.2", 2000, username="bob", password_provided=True),
            row("c", "2001:db8::1", 3000, listener="ssl", tls_used=True, reason_code="cert-required"),
        ]
    )
    assert {name for name, _ in await found(store, **query)} == names


async def test_pages_do_not_overlap_and_newest_come_first(store: Store) -> None:
    await store.upsert_unauthorized([row(f"c{number}", ts=number // 3) for number in range(10)])
    pages = [await store.find_unauthorized(UnauthorizedQuery(page_size=4, page=page)) for page in range(4)]
    names = [entry.client_id for page in pages for entry in page.data]
    assert names == ["c9", "c6", "c7", "c8", "c3", "c4", "c5", "c0", "c1", "c2"]
    assert [(page.total_pages, page.total_elements, page.has_next) for page in pages] == [
        (3, 10, True),
        (3, 10, True),
        (3, 10, False),
        (3, 10, False),
    ]


@pytest.mark.parametrize("column", UnauthorizedQuery.sort_properties)
async def test_every_sort_property_sorts(column: str, store: Store) -> None:
    await store.upsert_unauthorized([row("b", ts=1, username="z"), row("a", ts=2, username="y", attempts=2)])
    up = await found(store, sort_property=column, sort_order="ASC")
    down = await found(store, sort_property=column, sort_order="DESC")
    assert sorted(up) == sorted(down) == [("a", "203.0.113.7"), ("b", "203.0.113.7")]


async def test_deleting(store: Store) -> None:
    await store.upsert_unauthorized(
        [row("a", "203.0.113.1"), row("a", "203.0.113.2"), row("b", "203.0.113.1")]
    )
    assert await store.delete_unauthorized("a", "203.0.113.2") == 1
    assert await store.delete_unauthorized(None, "203.0.113.9") == 0
    assert await store.delete_unauthorized("a", None) == 1
    assert await found(store) == [("b", "203.0.113.1")]
    assert await store.delete_unauthorized(None, None) == 1


async def test_the_old_and_then_the_oldest_are_purged(store: Store) -> None:
    await store.upsert_unauthorized([row(f"c{number}", ts=number) for number in range(100)])
    assert await store.purge_unauthorized(before=50, max_rows=1000) == 50
    assert await store.purge_unauthorized(before=0, max_rows=10) == 40
    page = await store.find_unauthorized(UnauthorizedQuery(page_size=1000))
    assert [entry.ts for entry in page.data] == list(range(99, 89, -1))


async def test_a_strangers_text_is_no_sql(store: Store) -> None:
    strange = "'; DROP TABLE unauthorized_client; --"
    await store.upsert_unauthorized([row(strange)])
    assert await found(store, client_id=strange, text_search=strange) == [(strange, "203.0.113.7")]


# blocks

REGEX = BlockedClient(type="REGEX", value="dev-.*", regex_match_target="BY_CLIENT_ID")


async def test_a_block_comes_back_as_it_went_with_a_growing_revision(store: Store) -> None:
    block = BlockedClient(
        type="IP_ADDRESS",
        value="203.0.113.0/24",
        expiration_time=5,
        description="why",
        created_at=1,
        created_by="auto",
        hits=7,
        last_hit_at=3,
        strikes=2,
    )
    first = await store.put_block(block)
    second = await store.put_block(REGEX)
    assert second.revision > first.revision > 0
    changes = await store.blocks(0)
    assert changes.changed == (first, second)
    assert (changes.revision, changes.removed) == (second.revision, ())
    assert first == dataclasses.replace(block, revision=first.revision)


async def test_polling_gives_what_has_changed_since(store: Store) -> None:
    first = await store.put_block(REGEX)
    seen = (await store.blocks(0)).revision
    assert await store.blocks(seen) == (seen, (), ())
    again = await store.put_block(BlockedClient(type="USERNAME", value="u"))
    assert await store.delete_block(REGEX.key)
    changes = await store.blocks(seen)
    assert changes.changed == (again,)
    assert changes.removed == (first.key,)
    assert await store.blocks(changes.revision) == (changes.revision, (), ())


async def test_a_block_that_comes_back_is_not_removed(store: Store) -> None:
    await store.put_block(REGEX)
    await store.delete_block(REGEX.key)
    again = await store.put_block(REGEX)
    assert (await store.blocks(0)).changed == (again,)
    assert (await store.blocks(0)).removed == ()


async def test_deleting_a_block_twice(store: Store) -> None:
    await store.put_block(REGEX)
    assert [await store.delete_block(REGEX.key) for _ in range(2)] == [True, False]


# failures


async def test_failures_are_counted_in_a_sliding_window(store: Store) -> None:
    counts = [await store.add_failure("203.0.113.7", now, 100) for now in (0, 50, 99, 100, 101, 151)]
    assert counts == [1, 2, 3, 3, 4, 4]
    assert await store.add_failure("203.0.113.8", 151, 100) == 1


# being closed, and being wrong


async def test_many_writers_at_once_lose_nothing(store: Store) -> None:
    await asyncio.gather(*(store.upsert_unauthorized([row(ip=f"203.0.113.{n % 4}")]) for n in range(400)))
    page = await store.find_unauthorized(UnauthorizedQuery())
    assert [entry.attempts for entry in page.data] == [100] * 4


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.upsert_unauthorized([row()])
    with pytest.raises(StoreError, match="is closed"):
        await store.find_unauthorized(UnauthorizedQuery())


async def test_what_was_queued_before_close_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "broker.db")
    first = SqliteStore(path)
    written = asyncio.gather(*(first.upsert_unauthorized([row(f"c{n}")]) for n in range(50)))
    await asyncio.sleep(0)
    await first.close()
    await written
    second = SqliteStore(path)
    assert (await second.find_unauthorized(UnauthorizedQuery())).total_elements == 50
    await second.close()


UNUSABLE = [
    ("a-directory", lambda path: path.mkdir(), "cannot be opened: Is a directory"),
    (
        "not-a-database",
        lambda path: path.write_bytes(b"x" * 4096),
        "cannot be opened: file is not a database",
    ),
    ("a-newer-version", lambda path: _of_version(path, 99), r"was written by a newer version \(schema 99"),
]


@pytest.mark.parametrize(("make", "said"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_a_store_that_cannot_be_used_is_one_line(make: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    make(path)
    with pytest.raises(StoreError, match=said) as caught:
        SqliteStore(str(path))
    assert str(caught.value).startswith(f"store {path}")
    assert "\n" not in str(caught.value)


def _of_version(path: Path, version: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()


async def test_a_store_that_another_process_locks_raises_and_then_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyproto_rs.mqtt.store.sqlite.worker._BUSY", 0.01)
    path = str(tmp_path / "broker.db")
    store = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        await store.upsert_unauthorized([row()])
    other.execute("ROLLBACK")
    other.close()
    await store.upsert_unauthorized([row()])
    assert await found(store) == [("dev-7", "203.0.113.7")]
    await store.close()


ANOTHER = """
import asyncio, sys
from proxyproto_rs.mqtt.model.records import UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore

async def main(path, times):
    store = SqliteStore(path)
    row = UnauthorizedClient(client_id="dev-7", ip_address="203.0.113.7", ts=1, reason_code="x", listener="tcp")
    for _ in range(int(times)):
        await store.upsert_unauthorized([row])
    print(sum(row.attempts for row in (await store.find_unauthorized(UnauthorizedQuery())).data))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def another_process(path: str, times: int) -> int:
    """Count one row so many times in another process. Return the attempts that it then finds."""
    arguments = (sys.executable, "-c", ANOTHER, path, str(times))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return int(said)


async def test_a_second_process_that_ends_takes_nothing_away(tmp_path: Path) -> None:
    path = str(tmp_path / "broker.db")
    store = SqliteStore(path)
    await store.upsert_unauthorized([row()])
    assert await another_process(path, 1) == 2
    await store.upsert_unauthorized([row()])
    assert await another_process(path, 0) == 3
    await store.close()
    assert await another_process(path, 0) == 3


async def test_two_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = str(tmp_path / "broker.db")
    store = SqliteStore(path)
    others = [asyncio.create_task(another_process(path, 60)) for _ in range(2)]
    while not all(other.done() for other in others):
        await store.upsert_unauthorized([row(attempts=0)])
    await asyncio.gather(*others)
    assert await another_process(path, 0) == 120
    await store.close()


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    store = SqliteStore(str(path))
    modes = {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()}
    asyncio.run(store.close())
    assert modes == {0}


PATHS = [
    ("sqlite:/var/x.db", {}, "/var/x.db"),
    ("sqlite::memory:", {}, ":memory:"),
    (None, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/h"}, "/var/lib/a/broker.db"),
    (None, {"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/proxyproto-rs/broker.db"),
    (None, {"HOME": "/h"}, "/h/.local/state/proxyproto-rs/broker.db"),
]


@pytest.mark.parametrize(("setting", "environ", "path"), PATHS, ids=[path for _, _, path in PATHS])
def test_where_the_store_is(setting: str | None, environ: dict[str, str], path: str) -> None:
    assert sqlite_path(setting, environ) == path
