"""Blocked clients: whom a block matches, where, until when, and what must never be blocked. The clock is made up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import re
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs import AddressSet
from proxyproto_rs.mqtt.config import BlockedConfig
from proxyproto_rs.mqtt.model.records import BlockedClient, BlockQuery
from proxyproto_rs.mqtt.store.protocol import BlockChanges, StoreError, StoreUnavailable
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore
from proxyproto_rs.mqtt.tables.blocks.blocked import Blocked, BlockEvents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxyproto_rs.mqtt.store.protocol import Store

PROXY = ipaddress.ip_network("10.0.0.0/24")


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


class Heard(BlockEvents):
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def added(self, block: BlockedClient, by: str) -> None:
        self.events.append(("added", block.key, by))

    def removed(self, block: BlockedClient, by: str) -> None:
        self.events.append(("removed", block.key, by))

    def expired(self, block: BlockedClient) -> None:
        self.events.append(("expired", block.key, ""))


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(":memory:")
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def blocked(store: Store, clock: Clock, heard: Heard) -> Blocked:
    opened = Blocked(store, BlockedConfig(cleanup_ttl=100), events=heard, clock=clock)
    opened.protect([PROXY])
    await opened.start()
    return opened


def ip(value: str, **fields: Any) -> BlockedClient:
    return BlockedClient(type="IP_ADDRESS", value=value, **fields)


MEETS = [
    (BlockedClient(type="CLIENT_ID", value="dev-7"), ("dev-7", None, "203.0.113.7"), True),
    (BlockedClient(type="CLIENT_ID", value="dev-7"), ("dev-77", None, "203.0.113.7"), False),
    (BlockedClient(type="USERNAME", value="u"), ("x", "u", "203.0.113.7"), True),
    (BlockedClient(type="USERNAME", value="u"), ("u", None, "203.0.113.7"), False),
    (ip("203.0.113.7"), ("x", None, "203.0.113.7"), True),
    (ip("203.0.113.7"), ("x", None, "203.0.113.70"), False),
    (ip("203.0.113.0/24"), ("x", None, "203.0.113.255"), True),
    (ip("203.0.113.0/24"), ("x", None, "203.0.114.0"), False),
    (ip("2001:db8::/32"), ("x", None, "2001:db8:1::7"), True),
    (ip("2001:db8::/32"), ("x", None, "2001:db9::7"), False),
    (ip("203.0.113.0/24"), ("x", None, "/run/client.sock"), False),
    (BlockedClient(type="REGEX", value="dev-.*", regex_match_target="BY_CLIENT_ID"), ("dev-7", None, "::1"), True),
    (BlockedClient(type="REGEX", value="dev-", regex_match_target="BY_CLIENT_ID"), ("dev-7", None, "::1"), False),
    (BlockedClient(type="REGEX", value="dev-.*", regex_match_target="BY_CLIENT_ID"), ("my-dev-7", None, "::1"), False),
    (BlockedClient(type="REGEX", value="a|b", regex_match_target="BY_USERNAME"), ("x", "b", "::1"), True),
    (BlockedClient(type="REGEX", value=".*", regex_match_target="BY_USERNAME"), ("x", None, "::1"), False),
    (BlockedClient(type="REGEX", value=r"203\.0\..*", regex_match_target="BY_IP_ADDRESS"),
     ("x", None, "203.0.113.7"), True),
]  # fmt: skip


@pytest.mark.parametrize(("block", "client", "met"), MEETS, ids=[f"{b.key}-{c}" for b, c, _ in MEETS])
async def test_who_is_covered_by_a_block(
    block: BlockedClient, client: tuple[str, str | None, str], met: bool, blocked: Blocked
) -> None:
    await blocked.add(block)
    found = blocked.match(*client)
    assert (found is not None) == met
    assert (found.hits if found else 0) == met


async def test_a_hostile_client_id_does_not_hang_a_pattern(blocked: Blocked) -> None:
    await blocked.add(BlockedClient(type="REGEX", value="(a+)+b", regex_match_target="BY_CLIENT_ID"))
    assert blocked.match("a" * 65535, None, "203.0.113.7") is None


async def test_an_expired_inner_network_does_not_hide_an_outer_one(blocked: Blocked, clock: Clock) -> None:
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1))
    await blocked.add(ip("203.0.113.0/24"))
    clock.now += 1
    found = blocked.match_address("203.0.113.7")
    assert found is not None
    assert found.value == "203.0.113.0/24"


NEVER = [
    (ip("10.0.0.7"), "10.0.0.7 would block the trusted proxy 10.0.0.0/24"),
    (ip("10.0.0.0/8"), "10.0.0.0/8 would block the trusted proxy 10.0.0.0/24"),
    (ip("0.0.0.0/0"), "0.0.0.0/0 would block the trusted proxy 10.0.0.0/24"),
    (ip("127.0.0.0/8"), "127.0.0.0/8 would block all of loopback (127.0.0.0/8)"),
    (ip("126.0.0.0/7"), "126.0.0.0/7 would block all of loopback (127.0.0.0/8)"),
    (ip("::/0"), "::/0 would block all of loopback (::1/128)"),
    (ip("198.51.100.9"), "198.51.100.9 would block the trusted proxy 198.51.100.9/32"),
    (
        BlockedClient(type="REGEX", value=r"198\..*", regex_match_target="BY_IP_ADDRESS"),
        r"198\..* would block the trusted proxy 198.51.100.9",
    ),
    (ip("203.0.113.9", expiration_time=5), "expiration_time 5 is in the past"),
]


@pytest.mark.parametrize(("block", "said"), NEVER, ids=[block.key for block, _ in NEVER])
async def test_what_must_not_be_blocked(
    block: BlockedClient, said: str, blocked: Blocked, heard: Heard, store: Store
) -> None:
    blocked.saw_proxy("198.51.100.9")
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        await blocked.add(block)
    assert heard.events == []
    assert (await store.blocks(0)).changed == ()


async def test_one_loopback_address_may_be_blocked(blocked: Blocked) -> None:
    await blocked.add(ip("127.0.0.9"))
    assert blocked.match_address("127.0.0.9") is not None


async def test_the_acceptors_set_follows(blocked: Blocked, clock: Clock) -> None:
    await blocked.add(ip("203.0.113.0/24"))
    deny = AddressSet(["192.0.2.0/24"])
    blocked.bind(deny, keep=[ipaddress.ip_network("192.0.2.0/24")])
    assert "203.0.113.7" in deny
    await blocked.add(ip("192.0.2.0/24"))
    await blocked.add(ip("198.51.100.7", expiration_time=clock.ms + 60_000))
    assert "198.51.100.7" in deny
    clock.now += 61
    await blocked.sweep()
    assert "198.51.100.7" not in deny
    await blocked.remove("IP_ADDRESS", "203.0.113.0/24")
    await blocked.remove("IP_ADDRESS", "192.0.2.0/24")
    assert "203.0.113.7" not in deny
    assert "192.0.2.1" in deny, "the operator's own deny stays"
    blocked.unbind(deny)
    await blocked.add(ip("203.0.113.7"))
    assert "203.0.113.7" not in deny


async def test_blocks_survive_a_restart_and_expired_ones_are_not_told_again(
    blocked: Blocked, store: Store, clock: Clock
) -> None:
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    await blocked.add(BlockedClient(type="USERNAME", value="u", description="why"))
    clock.now += 2
    heard = Heard()
    again = Blocked(store, BlockedConfig(cleanup_ttl=100), events=heard, clock=clock)
    await again.start()
    await again.sweep()
    assert heard.events == []
    assert again.match("x", "u", "203.0.113.7") is not None
    assert again.match("x", None, "203.0.113.7") is None
    assert len((await again.find(BlockQuery())).data) == 2


async def test_expiry_is_told_once_and_the_row_goes_later(
    blocked: Blocked, store: Store, clock: Clock, heard: Heard
) -> None:
    block = await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    statuses = []
    for step in (0, 1, 49, 1, 48, 2):
        clock.now += step
        await blocked.sweep()
        statuses.append([row.status for row in (await blocked.find(BlockQuery())).data])
    assert statuses == [["ACTIVE"], ["EXPIRED"], ["EXPIRED"], ["DELETING_SOON"], ["DELETING_SOON"], []]
    assert heard.events == [("added", block.key, "api"), ("expired", block.key, "")]
    assert (await store.blocks(0)).changed == ()


async def test_a_block_that_is_renewed_expires_at_its_new_time(
    blocked: Blocked, clock: Clock, heard: Heard
) -> None:
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    renewed = await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 5000, description="longer"))
    clock.now += 2
    await blocked.sweep()
    assert blocked.match_address("203.0.113.7") is not None
    clock.now += 3
    await blocked.sweep()
    assert heard.events.count(("expired", renewed.key, "")) == 1


async def test_other_nodes_blocks_arrive_and_go(store: Store, clock: Clock) -> None:
    ours, theirs = Heard(), Heard()
    one = Blocked(store, events=ours, clock=clock)
    two = Blocked(store, events=theirs, clock=clock)
    await one.add(ip("203.0.113.7"))
    await two.poll()
    assert two.match_address("203.0.113.7") is not None
    await one.poll()
    await two.remove("IP_ADDRESS", "203.0.113.7")
    await one.poll()
    assert one.match_address("203.0.113.7") is None
    key = "IP_ADDRESS:203.0.113.7"
    assert ours.events == [("added", key, "api"), ("removed", key, "store")]
    assert theirs.events == [("added", key, "store"), ("removed", key, "api")]


async def test_hits_are_not_told_as_changes(blocked: Blocked, store: Store, clock: Clock) -> None:
    await blocked.add(ip("203.0.113.7"))
    heard = Heard()
    other = Blocked(store, events=heard, clock=clock)
    await other.start()
    blocked.match_address("203.0.113.7", 3)
    task = asyncio.create_task(blocked.run())
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await other.poll()
    (row,) = (await other.find(BlockQuery())).data
    assert (row.hits, row.last_hit_at) == (3, clock.ms)
    assert heard.events == []


async def test_removing(blocked: Blocked, heard: Heard) -> None:
    await blocked.add(BlockedClient(type="REGEX", value="x", regex_match_target="BY_USERNAME"))
    assert not await blocked.remove("REGEX", "x", "BY_CLIENT_ID")
    assert await blocked.remove("REGEX", "x", "BY_USERNAME", by="operator")
    assert not await blocked.remove("REGEX", "x", "BY_USERNAME")
    assert heard.events[1:] == [("removed", "REGEX:BY_USERNAME:x", "operator")]
    with pytest.raises(ValueError, match="must be an IP address"):
        await blocked.remove("IP_ADDRESS", "nonsense")


QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["203.0.113.0/24", "dev-.*", "u"]),
    ({"type_list": ("USERNAME", "REGEX")}, ["dev-.*", "u"]),
    ({"value": "DEV"}, ["dev-.*"]),
    ({"regex_match_target_list": ("BY_CLIENT_ID",)}, ["dev-.*"]),
    ({"text_search": "noisy"}, ["203.0.113.0/24"]),
    ({"start_time": 1}, ["203.0.113.0/24"]),
    ({"end_time": 0}, ["dev-.*", "u"]),
    ({"status_list": ("EXPIRED",)}, ["203.0.113.0/24"]),
    ({"status_list": ("ACTIVE",)}, ["dev-.*", "u"]),
    ({"page_size": 1, "page": 1}, ["dev-.*"]),
    ({"sort_order": "DESC"}, ["u", "dev-.*", "203.0.113.0/24"]),
]


@pytest.mark.parametrize(("query", "values"), QUERIES, ids=[str(query) for query, _ in QUERIES])
async def test_finding(query: dict[str, Any], values: list[str], blocked: Blocked, clock: Clock) -> None:
    await blocked.add(ip("203.0.113.0/24", expiration_time=clock.ms + 1000, description="Noisy"))
    await blocked.add(BlockedClient(type="REGEX", value="dev-.*", regex_match_target="BY_CLIENT_ID"))
    await blocked.add(BlockedClient(type="USERNAME", value="u"))
    clock.now += 1
    page = await blocked.find(BlockQuery(**{"sort_property": "value", "sort_order": "ASC", **query}))
    assert [row.value for row in page.data] == values


async def test_counts_are_of_active_blocks(blocked: Blocked, clock: Clock) -> None:
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    await blocked.add(BlockedClient(type="USERNAME", value="u"))
    clock.now += 1
    assert blocked.count_by_type() == {"CLIENT_ID": 0, "USERNAME": 1, "IP_ADDRESS": 0, "REGEX": 0}


async def test_a_broken_store_does_not_lift_a_block(
    blocked: Blocked, store: SqliteStore, heard: Heard
) -> None:
    await store.close()
    with pytest.raises(StoreError):
        await blocked.add(ip("203.0.113.7"))
    assert blocked.match_address("203.0.113.7") is not None
    assert len(heard.events) == 1


class AwayStore(SqliteStore):
    """Does not answer while it is away."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.away = False

    async def put_block(self, block: BlockedClient) -> BlockedClient:
        self._refuse()
        return await super().put_block(block)

    async def delete_block(self, key: str) -> bool:
        self._refuse()
        return await super().delete_block(key)

    def _refuse(self) -> None:
        if self.away:
            raise StoreUnavailable("the database does not answer")


async def test_a_change_by_an_operator_is_whole_or_not_made_while_the_store_is_away(
    clock: Clock, heard: Heard
) -> None:
    store = AwayStore()
    blocked = Blocked(store, clock=clock, events=heard)
    known = await blocked.add(ip("203.0.113.7"))
    heard.events.clear()
    store.away = True
    with pytest.raises(StoreUnavailable):
        await blocked.add(ip("203.0.113.8"))
    with pytest.raises(StoreUnavailable):
        await blocked.remove("IP_ADDRESS", "203.0.113.7")
    store.away = False
    await blocked.save()
    assert blocked.match_address("203.0.113.8") is None
    assert blocked.match_address("203.0.113.7") is not None
    assert (await store.blocks(0)).changed == (known,)
    assert heard.events == []
    await store.close()


async def test_a_ban_holds_before_it_is_stored(blocked: Blocked, store: Store) -> None:
    blocked.ban(dataclasses.replace(ip("203.0.113.7"), created_by="auto", strikes=1))
    assert blocked.match_address("203.0.113.7") is not None
    assert (await store.blocks(0)).changed == ()
    await blocked.save()
    assert [block.strikes for block in (await store.blocks(0)).changed] == [1]


class DeletingStore(SqliteStore):
    """Fails to delete blocks as often as the test says. It says when a deletion has begun, and waits in it."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(":memory:")
        self.failures = failures
        self.asked = asyncio.Event()
        self.may_delete = asyncio.Event()
        self.may_delete.set()

    async def delete_block(self, key: str) -> bool:
        self.asked.set()
        await self.may_delete.wait()
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        return await super().delete_block(key)


async def test_an_old_block_is_not_forgotten_before_the_store_has_deleted_it(clock: Clock) -> None:
    store = DeletingStore(failures=2)
    blocked = Blocked(store, BlockedConfig(cleanup_ttl=100), clock=clock)
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    clock.now += 102
    for _ in range(2):
        with pytest.raises(StoreError):
            await blocked.sweep()
        assert [row.value for row in (await blocked.find(BlockQuery())).data] == ["203.0.113.7"]
    await blocked.sweep()
    assert (await blocked.find(BlockQuery())).data == ()
    assert (await store.blocks(0)).changed == ()
    await store.close()


async def test_a_block_that_is_renewed_while_the_old_one_is_deleted_stays(clock: Clock) -> None:
    store = DeletingStore()
    blocked = Blocked(store, BlockedConfig(cleanup_ttl=100), clock=clock)
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    clock.now += 102
    store.may_delete.clear()
    sweep = asyncio.create_task(blocked.sweep())
    await store.asked.wait()
    blocked.ban(ip("203.0.113.7"))  # it is in force, and not stored
    assert blocked.match_address("203.0.113.7") is not None
    store.may_delete.set()
    await sweep
    await blocked.save()
    assert blocked.match_address("203.0.113.7") is not None
    assert [block.value for block in (await store.blocks(0)).changed] == ["203.0.113.7"]
    await store.close()


class SlowStore(SqliteStore):
    """When the test allows it, answers with the blocks as they were when it was asked."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def blocks(self, since_revision: int) -> BlockChanges:
        changes = await super().blocks(since_revision)
        self.asked.set()
        await self.may_answer.wait()
        return changes


async def test_a_poll_that_is_under_way_does_not_bring_back_what_is_removed() -> None:
    store = SlowStore()
    await store.put_block(BlockedClient(type="IP_ADDRESS", value="192.0.2.9"))
    blocked = Blocked(store)
    poll = asyncio.create_task(blocked.poll())
    await store.asked.wait()
    removal = asyncio.create_task(blocked.remove("IP_ADDRESS", "192.0.2.9"))
    await asyncio.sleep(0)  # it has forgotten the block, and has not deleted it
    store.may_answer.set()
    await asyncio.gather(poll, removal)
    assert (await blocked.find(BlockQuery())).data == ()
    await blocked.poll()
    assert (await blocked.find(BlockQuery())).data == ()
    await store.close()


async def test_a_poll_that_is_under_way_does_not_undo_a_new_ban(clock: Clock) -> None:
    store = SlowStore()
    await store.put_block(ip("192.0.2.9", expiration_time=clock.ms + 1000))
    blocked = Blocked(store, clock=clock)
    poll = asyncio.create_task(blocked.poll())
    await store.asked.wait()
    longer = ip("192.0.2.9", expiration_time=clock.ms + 9000)
    blocked.ban(longer)
    store.may_answer.set()
    await poll
    await blocked.save()
    assert blocked.get(longer.key) == dataclasses.replace(longer, revision=2)
    assert (await store.blocks(0)).changed == (dataclasses.replace(longer, revision=2),)
    await store.close()


async def test_a_block_that_is_renewed_and_stored_while_the_sweep_waits_is_not_deleted(clock: Clock) -> None:
    store = SlowStore()
    blocked = Blocked(store, BlockedConfig(cleanup_ttl=100), clock=clock)
    await blocked.add(ip("203.0.113.7", expiration_time=clock.ms + 1000))
    clock.now += 102
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(blocked.poll())]
    await store.asked.wait()
    for waits_for_the_poll in (blocked.add(ip("198.51.100.7")), blocked.sweep()):
        tasks.append(asyncio.create_task(waits_for_the_poll))
        await asyncio.sleep(0)
    blocked.ban(ip("203.0.113.7"))
    store.may_answer.set()
    await asyncio.gather(*tasks)
    assert {block.value for block in (await store.blocks(0)).changed} == {"203.0.113.7", "198.51.100.7"}
    await store.close()
