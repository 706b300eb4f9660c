"""Whatever is asked of them, in any order, SQLite and PostgreSQL give the same answers."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient, UnauthorizedQuery
from proxyproto_rs.mqtt.store.protocol import Store
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")

from proxyproto_rs.mqtt.store.postgresql.store import PostgresStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .. import postgres

# Few values, so that calls meet; and those on which two databases could differ: case, order, wildcards, nothing.
# PostgreSQL keeps neither NUL nor half a surrogate pair: see test_postgresql.py.
IDS = st.sampled_from(["", "a", "A", "b", "É", "é", "a%", "a_", "\\", "z\U0001f600", "z\uffff", " a"])
ADDRESSES = st.sampled_from(["203.0.113.7", "203.0.113.70", "2001:db8::7", "/run/mqtt.sock", ""])
TIMES = st.integers(0, 12)
CLIENTS = st.builds(
    UnauthorizedClient,
    client_id=IDS,
    ip_address=ADDRESSES,
    ts=TIMES,
    username=st.none() | IDS,
    password_provided=st.booleans(),
    tls_used=st.booleans(),
    reason=IDS,
    first_ts=TIMES,
    attempts=st.integers(1, 3),
    reason_code=st.sampled_from(["bad-credentials", "blocked"]),
    listener=st.sampled_from(["tcp", "ssl"]),
    proxy_address=st.none() | ADDRESSES,
    port=st.integers(0, 65535),
)
QUERIES = st.builds(
    UnauthorizedQuery,
    page_size=st.integers(1, 5),
    page=st.integers(0, 2),
    text_search=st.none() | IDS,
    client_id=st.none() | IDS,
    username=st.none() | IDS,
    ip_address=st.none() | ADDRESSES | st.sampled_from(["203.0.113.0/29", "203.0.0.0/16", "2001:db8::/32"]),
    reason_code=st.none() | st.just("blocked"),
    password_provided_list=st.sampled_from([(), (True,), (False, True)]),
    start_time=st.none() | TIMES,
    end_time=st.none() | TIMES,
    sort_property=st.sampled_from(UnauthorizedQuery.sort_properties),
    sort_order=st.sampled_from(["ASC", "DESC"]),
)
BLOCKS = st.builds(
    BlockedClient,
    type=st.sampled_from(["CLIENT_ID", "USERNAME"]),
    value=IDS.filter(bool),
    expiration_time=TIMES,
    description=st.none() | IDS,
    created_by=st.sampled_from(["api", "auto"]),
    hits=st.integers(0, 3),
)
CALLS = st.one_of(
    st.tuples(st.just("upsert_unauthorized"), st.tuples(st.lists(CLIENTS, max_size=6))),
    st.tuples(st.just("clear_unauthorized"), st.tuples(IDS, ADDRESSES)),
    st.tuples(st.just("find_unauthorized"), st.tuples(QUERIES)),
    st.tuples(st.just("delete_unauthorized"), st.tuples(st.none() | IDS, st.none() | ADDRESSES)),
    st.tuples(st.just("purge_unauthorized"), st.tuples(TIMES, st.integers(1, 6))),
    st.tuples(st.just("put_block"), st.tuples(BLOCKS)),
    st.tuples(st.just("delete_block"), st.tuples(BLOCKS.map(lambda block: block.key))),
    st.tuples(st.just("blocks"), st.tuples(st.integers(0, 6))),
    st.tuples(st.just("add_failure"), st.tuples(ADDRESSES, TIMES, st.integers(0, 8))),
)


def test_every_call_is_compared() -> None:
    told = {name for name, value in vars(Store).items() if inspect.iscoroutinefunction(value)} - {"close"}
    drawn: set[str] = set()

    @settings(max_examples=500, database=None)
    @given(CALLS)
    def draw(call: tuple[str, tuple[Any, ...]]) -> None:
        drawn.add(call[0])

    draw()
    assert drawn == told


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, max_size=25))
def test_the_stores_agree(
    calls: list[tuple[str, tuple[Any, ...]]],
    loop: asyncio.AbstractEventLoop,
    postgres_server: postgres.Server,
) -> None:
    async def compare() -> None:
        connection = await asyncpg.connect(postgres_server.dsn())
        await connection.execute("DROP SCHEMA IF EXISTS proxyproto_rs CASCADE")
        await connection.close()
        stores = (SqliteStore(":memory:"), await PostgresStore.open(postgres_server.dsn()))
        try:
            for name, arguments in calls:
                answers = [await getattr(store, name)(*arguments) for store in stores]
                assert answers[0] == answers[1], name
        finally:
            for store in stores:
                await store.close()

    loop.run_until_complete(compare())
