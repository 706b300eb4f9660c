"""What is lost when a node is killed, and when the database stops, is slow, full, only reads, or is another one.

And what a node whose clock is wrong does to the others: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt import BlockedClient, SessionQuery, StoreUnavailable, UnauthorizedQuery

from . import peers, postgres
from .peers import PINGREQ, PINGRESP, WELCOME, connack, connect, dial, log_in, running

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.login import Connect

    from .peers import Broker

OUTAGE_SECONDS = float(os.environ.get("PROXYPROTO_OUTAGE_SECONDS", "5"))
"""How long the database stops. The figures in docs/benchmarks.md are those of 60, with `-o timeout=200`."""

RATE = 200  # logins a second
MIB = 1 << 20
MARKED_SECONDS = 15.0

until = functools.partial(peers.until, seconds=20.0)


@dataclass
class Node:
    """A broker in a process of its own."""

    process: asyncio.subprocess.Process
    address: Address


@contextlib.asynccontextmanager
async def node(environment: dict[str, str] | None = None, **config: Any) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqtt.child", "gate", json.dumps(config)),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    try:
        port = json.loads(await process.stdout.readline())["port"]
        # It reports each login. Unread reports would fill the pipe after some thousands, and stop it.
        reports = asyncio.create_task(process.stdout.read())
        yield Node(process, ("127.0.0.1", port))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reports


async def all_rows(broker: Broker) -> list[str]:
    """The client ids of all refused clients."""
    found: list[str] = []
    while True:
        query = UnauthorizedQuery(
            page=len(found) // 1000, page_size=1000, sort_property="client_id", sort_order="ASC"
        )
        page = await broker.service.unauthorized.find(query)
        found += [row.client_id for row in page.data]
        if not page.has_next:
            return found


async def refused_one_after_the_other(address: Address) -> list[str]:
    """Wrong logins until the node is gone. Returns the client ids that were refused, in this order."""
    refused: list[str] = []
    with contextlib.suppress(ConnectionError):
        while True:
            client_id = f"bad-{len(refused):06}"
            async with dial(address, connect(client_id, password=b"wrong").encode()) as client:
                if await client.packet() != connack(5):
                    break
            refused.append(client_id)
    return refused


# a node is killed


async def test_a_node_that_is_killed_under_load(database: str) -> None:
    """No row that another node has seen is lost, and none but the newest; its sessions leave the list in 15 s."""
    loop = asyncio.get_running_loop()
    async with (
        node(store=database, node_id="killed") as killed,
        running(store=database, node_id="b") as b,
        running(store=database, node_id="c") as c,
        log_in(b.address(), connect("on-b")) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for number in range(20):
            await stack.enter_async_context(log_in(killed.address, connect(f"on-killed-{number}")))
        await c.until_connected(21, 2 * MARKED_SECONDS)
        load = asyncio.create_task(refused_one_after_the_other(killed.address))
        while len(seen := await all_rows(b)) < 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        killed.process.send_signal(signal.SIGKILL)
        since = loop.time()
        refused = await load
        rows = set(await all_rows(c))
        assert rows >= set(seen)
        lost = [client_id for client_id in refused if client_id not in rows]
        assert lost == refused[len(refused) - len(lost) :], "only the newest, which no batch had yet"
        assert await client.ask(PINGREQ) == PINGRESP
        async with log_in(c.address(), connect("on-c")) as other:
            assert other.connack == WELCOME
            await b.until_connected(2, 2 * MARKED_SECONDS)
            took = loop.time() - since
        assert [one.node_id for one in await b.service.nodes()] == ["b", "c"]
        assert took < MARKED_SECONDS
        print(f"\nkilled: {len(refused)} refused, {len(lost)} rows lost, sessions marked after {took:.1f} s")


# the database stops


@dataclass
class Load:
    """Logins at a steady rate, each at its time however long the others take. Every second one is wrong."""

    address: Address
    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unexpected: list[bytes] = field(default_factory=list)
    _started: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float) -> list[float]:
        """Return how many seconds each login took."""
        loop = asyncio.get_running_loop()
        since, before = loop.time(), len(self.took)
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(since + number / RATE - loop.time())
            task = loop.create_task(self._log_in())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        return self.took[before:]

    async def _log_in(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        self._started += 1
        client_id, is_good = f"load-{self._started:06}", self._started % 2 == 0
        how = connect(client_id) if is_good else connect(client_id, password=b"wrong")
        async with log_in(self.address, how) as client:
            self.took.append(loop.time() - since)
            if client.connack != (WELCOME if is_good else connack(5)):
                self.unexpected.append(client.connack)
            elif not is_good:
                self.wrong.append(client_id)


async def test_a_database_that_stops_under_200_logins_a_second(
    database: str, postgres_server: postgres.Server
) -> None:
    """No login is refused or held up for it, and no row is missing afterwards."""
    async with node(store=database, node_id="a") as a, running(store=database, node_id="b") as b:
        load = Load(a.address)
        before = await load.run(2)
        memory = resident(a)
        await asyncio.to_thread(postgres_server.stop)
        try:
            during = await load.run(OUTAGE_SECONDS)
            grown = resident(a) - memory
        finally:
            await asyncio.to_thread(postgres_server.start)
        since = time.monotonic()
        await until(lambda: has_all(b, load.wrong))
        caught_up = time.monotonic() - since
        print(
            f"\noutage of {OUTAGE_SECONDS:g} s: {len(during)} logins, {len(load.wrong)} wrong, no row lost;"
            f" before: {quantiles(before)}; during: {quantiles(during)};"
            f" {grown / MIB:.1f} MiB more memory; caught up {caught_up:.1f} s after the start"
        )
    assert load.unexpected == []
    # Whoever waits for a database waits for as long as a connection may take, 5 s, or a command, 10 s.
    assert max(during) < 2.5
    # The tests' plugin keeps every login, which takes 8.6 KiB each with and without a database.
    assert grown < 32 * MIB + 12 * 1024 * len(during)


async def test_what_does_not_fit_while_the_database_is_away_is_counted(
    database: str, postgres_server: postgres.Server
) -> None:
    async with (
        postgres.linked(postgres_server) as link,
        running(store=postgres_server.dsn(link.directory), node_id="a") as a,
    ):
        a.service.unauthorized._capacity = 20
        link.accepts = False
        link.cut()
        for number in range(100):
            async with dial(a.address(), connect(f"bad-{number}", password=b"wrong").encode()) as client:
                assert await client.end() == connack(5)
        waiting = sum(len(step.rows) for step in a.service.unauthorized._steps)
        assert waiting + len(a.service.unauthorized._waiting) <= 60
        link.accepts = True
        await until(lambda: counts_all(a, 100))
        assert a.service.unauthorized.dropped > 0


async def counts_all(broker: Broker, count: int) -> bool:
    with contextlib.suppress(StoreUnavailable):
        rows = len(await all_rows(broker))
        return rows + broker.service.unauthorized.dropped == count
    return False


async def has_rows(broker: Broker, count: int) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return len(await all_rows(broker)) == count
    return False


async def has_all(broker: Broker, client_ids: list[str]) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return set(await all_rows(broker)) == set(client_ids)
    return False


def quantiles(took: list[float]) -> str:
    took = sorted(took)
    half, late = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"p50 {half * 1000:.1f} ms, p99 {late * 1000:.1f} ms, at most {took[-1] * 1000:.1f} ms"


def resident(node: Node) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# the database is there, and does not do what it should


async def wrong_login(broker: Broker, client_id: str) -> None:
    async with dial(broker.address(), connect(client_id, password=b"wrong").encode()) as client:
        assert await client.end() == connack(5)


def lines(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if line.startswith(start)]


WAIT_LINE = "unauthorized clients wait to be recorded: store postgresql:///postgres: "


async def test_a_database_that_is_slow(
    database: str, postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        postgres.linked(postgres_server) as link,
        running(store=postgres_server.dsn(link.directory)) as broker,
    ):
        link.delay = 0.6  # of everything that we send; a batch of rows needs several answers
        since = time.monotonic()
        for number in range(5):
            await wrong_login(broker, f"bad-{number}")
            async with log_in(broker.address(), connect(f"good-{number}")) as client:
                assert client.connack == WELCOME
        assert time.monotonic() - since < 2.5
        await until(lambda: has_rows(broker, 5))
        link.delay = 0.0
    slow = lines(caplog, "store postgresql:///postgres is slow: a call took ")
    assert slow
    assert len(slow) <= 2  # one for each pool, in a minute
    assert all(line.endswith(" s; look at the network to it and at its load") for line in slow)


async def test_a_database_that_only_reads(
    database: str, postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(store=database) as broker, postgres.connected(database) as administrator:
        await only_reads(administrator, True)
        try:
            await until(lambda: refuses_to_write(database))
            for number in range(5):
                await wrong_login(broker, f"bad-{number}")
            await broker.until(lambda: lines(caplog, WAIT_LINE))
        finally:
            await only_reads(administrator, False)
        await until(lambda: has_rows(broker, 5))
    (line,) = lines(caplog, WAIT_LINE)
    assert "read-only transaction; this server only reads: name the one that writes in `store`" in line


async def only_reads(administrator: Any, value: bool) -> None:
    await administrator.execute("SET default_transaction_read_only = off")
    await administrator.execute(
        f"ALTER SYSTEM SET default_transaction_read_only = {'on' if value else 'off'}"
    )
    await administrator.execute("SELECT pg_reload_conf()")


async def refuses_to_write(database: str) -> bool:
    async with postgres.connected(database) as connection:
        return bool(await connection.fetchval("SHOW default_transaction_read_only") == "on")


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory, postgres_server: postgres.Server) -> Iterator[Path]:
    """A file system of 16 MiB that PostgreSQL may write to."""
    directory = Path(tempfile.mkdtemp(prefix="pg-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        directory.rmdir()
        pytest.skip("a file system cannot be mounted here")
    try:
        inside = directory / "space"
        inside.mkdir()
        if postgres_server.user is not None:
            os.chown(inside, postgres_server.user, -1)
        yield inside
    finally:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


async def test_a_database_whose_disk_is_full(
    database: str, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with postgres.connected(database) as administrator:
        await administrator.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        await administrator.execute("ALTER ROLE tests SET default_tablespace = small")
        try:
            async with running(store=database) as broker:
                with pytest.raises(asyncpg.DiskFullError):
                    await administrator.execute(
                        "CREATE TABLE public.filler TABLESPACE small AS"
                        " SELECT repeat('x', 2000) FROM generate_series(1, 100000)"
                    )
                await fill(administrator)
                for number in range(300):  # more than the pages that are there have room for
                    await wrong_login(broker, f"bad-{number:0200}")
                await broker.until(lambda: lines(caplog, WAIT_LINE))
                await administrator.execute("DROP TABLE public.filler")
                await until(lambda: has_rows(broker, 300))
                assert broker.service.unauthorized.dropped == 0
        finally:
            await administrator.execute("DROP SCHEMA IF EXISTS proxyproto_rs CASCADE")
            await administrator.execute("DROP TABLE IF EXISTS public.filler")
            await administrator.execute("ALTER ROLE tests RESET default_tablespace")
            await administrator.execute("DROP TABLESPACE small")
    (line,) = lines(caplog, WAIT_LINE)
    assert "No space left on device; the disk of the database is full: make room there" in line


async def fill(administrator: Any) -> None:
    """Fill the table space to its last page."""
    await administrator.execute("CREATE TABLE public.filler (text text) TABLESPACE small")
    with contextlib.suppress(asyncpg.DiskFullError):
        while True:
            await administrator.execute(
                "INSERT INTO public.filler SELECT repeat('x', 2000) FROM generate_series(1, 4)"
            )


async def test_another_server_takes_over(
    postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The URI names two servers. The first is killed, and the second, a standby until then, is promoted."""
    programs = postgres.programs()
    assert programs is not None
    with postgres.serving(programs) as first, postgres.serving(programs, standby_of=first) as second:
        both = f"{first.directory},{second.directory}"
        async with running(store=f"postgresql://tests@/postgres?host={both}") as broker:
            await wrong_login(broker, "before")
            await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="known"))
            await broker.service.unauthorized.flush()
            async with postgres.connected(first.dsn()) as one, postgres.connected(second.dsn()) as two:
                written = await one.fetchval("SELECT pg_current_wal_lsn()")
                await until(lambda: replayed(two, written))
            await asyncio.to_thread(first.kill)
            await wrong_login(broker, "between")
            async with log_in(broker.address(), connect("good")) as client:
                assert client.connack == WELCOME
            await broker.until(lambda: lines(caplog, "unauthorized clients wait to be recorded: "))
            await asyncio.to_thread(second.promote)
            await until(lambda: has_all(broker, ["before", "between"]))
            await broker.service.blocked.add(BlockedClient(type="CLIENT_ID", value="later"))
            assert broker.service.unauthorized.dropped == 0
    assert len(lines(caplog, "unauthorized clients wait to be recorded: ")) == 1
    assert len(lines(caplog, "unauthorized clients are recorded again")) == 1
    assert not [record for record in caplog.records if record.exc_info], "no traceback, of asyncpg neither"


async def replayed(standby: Any, written: int) -> bool:
    return bool(await standby.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written))


# a clock that is wrong


@pytest.mark.parametrize("off", ["+1h", "-1h"])
async def test_a_node_whose_clock_is_wrong_by_an_hour(off: str, database: str) -> None:
    """Rows and sessions of all nodes stand in the order in which they came, and a block ends for all at once."""
    async with node(faketime(off), store=database, node_id="off") as wrong, running(store=database) as right:
        places = [wrong.address, right.address()] * 3
        async with contextlib.AsyncExitStack() as stack:
            for number, address in enumerate(places):
                async with dial(address, connect(f"bad-{number}", password=b"wrong").encode()) as client:
                    assert await client.end() == connack(5)
                await stack.enter_async_context(log_in(address, connect(f"good-{number}")))
            await until(lambda: has_rows(right, 6))
            await right.until_connected(6, 2 * MARKED_SECONDS)
            rows = await right.service.unauthorized.find(
                UnauthorizedQuery(sort_property="ts", sort_order="ASC")
            )
            assert [row.client_id for row in rows.data] == [f"bad-{number}" for number in range(6)]
            found = await right.service.sessions.find(
                SessionQuery(sort_property="connected_at", sort_order="ASC")
            )
            assert [row.client_id for row in found.data] == [f"good-{number}" for number in range(6)]
        now = right.service._clock()
        assert abs(now - rows.data[-1].ts / 1000) < 30
        expiry = now + 3
        block = BlockedClient(type="USERNAME", value="guest", expiration_time=int(expiry * 1000))
        await right.service.blocked.add(block)
        guest = connect("guest", username="guest")
        await until(lambda: answers(wrong.address, guest, connack(5)))
        await until(lambda: answers(wrong.address, guest, WELCOME))
        assert 0 <= right.service._clock() - expiry < 2


async def answers(address: Address, how: Connect, wanted: bytes) -> bool:
    async with log_in(address, how) as client:
        return client.connack == wanted


def faketime(off: str) -> dict[str, str]:
    """The environment of a process whose time of day is wrong. Its other clocks are right."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    return {"LD_PRELOAD": str(found), "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
