"""Bans for wrong logins: sliding window, escalation, forgiveness, and who is never banned. Time is an argument."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.mqtt.config import AutoBlockConfig
from proxyproto_rs.mqtt.model.records import BlockedClient
from proxyproto_rs.mqtt.store.protocol import StoreError
from proxyproto_rs.mqtt.store.sqlite.store import SqliteStore
from proxyproto_rs.mqtt.tables.blocks.auto_block import AutoBlock, FailureWindow
from proxyproto_rs.mqtt.tables.blocks.blocked import Blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from proxyproto_rs.mqtt.model.records import AddressSource

START = 1_000_000.0
GUESSER = "203.0.113.66"


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(":memory:")
    yield opened
    await opened.close()


def make(store: SqliteStore, **options: Any) -> tuple[AutoBlock, Blocked]:
    values: dict[str, Any] = {"enabled": True, "max_failures": 3, **options}
    blocked = Blocked(store, clock=lambda: START)
    return AutoBlock(blocked, store, AutoBlockConfig(**values)), blocked


def fail(
    auto: AutoBlock,
    times: Sequence[float],
    address: str = GUESSER,
    client_id: str = "x",
    source: AddressSource = "header",
) -> list[BlockedClient | None]:
    return [auto.failed(address, client_id, source, START + time) for time in times]


async def test_the_last_failure_that_is_too_many_bans_at_once(store: SqliteStore) -> None:
    auto, blocked = make(store)
    first, second, ban = fail(auto, [0, 1, 2])
    assert (first, second) == (None, None)
    assert ban == BlockedClient(
        type="IP_ADDRESS",
        value=GUESSER,
        expiration_time=int((START + 2 + 60) * 1000),
        description="3 failed logins in 60 s, ban 1",
        created_at=int((START + 2) * 1000),
        created_by="auto",
        strikes=1,
    )
    assert blocked.match_address(GUESSER) is not None
    assert blocked.match_address("203.0.113.67") is None
    assert auto.bans == 1


async def test_the_window_slides(store: SqliteStore) -> None:
    auto, _ = make(store)
    assert not any(fail(auto, [0, 59, 60, 119, 120]))
    assert any(fail(auto, [121]))


async def test_client_ids_of_one_address_count_together(store: SqliteStore) -> None:
    auto, _ = make(store)
    bans = [auto.failed(GUESSER, f"dev-{n}", "header", START + n) for n in range(3)]
    assert [ban is not None for ban in bans] == [False, False, True]


async def test_a_good_login_forgives_its_own_client_id_only(store: SqliteStore) -> None:
    auto, _ = make(store)
    fail(auto, [0, 1], client_id="mine")
    auto.succeeded(GUESSER, "mine")
    fail(auto, [2, 3], client_id="guessed")
    auto.succeeded(GUESSER, "mine")  # one valid account does not cover the guesser
    assert any(fail(auto, [4], client_id="guessed"))


async def test_an_ipv6_client_is_its_64(store: SqliteStore) -> None:
    auto, blocked = make(store)
    bans = [auto.failed(f"2001:db8:1:2::{n}", "x", "header", START) for n in range(1, 4)]
    assert [ban and ban.value for ban in bans] == [None, None, "2001:db8:1:2::/64"]
    assert blocked.match_address("2001:db8:1:2:ffff::1") is not None
    assert blocked.match_address("2001:db8:1:3::1") is None


async def test_bans_double_up_to_the_longest_and_are_forgotten(store: SqliteStore) -> None:
    auto, _ = make(store, max_failures=1, block_for=60, escalate=2, max_block=200, forget=1000)
    now, lengths, strikes = 0.0, [], []
    for pause in (1, 1, 1, 999, 1000):
        (ban,) = fail(auto, [now])
        assert ban is not None
        lengths.append(ban.expiration_time / 1000 - START - now)
        strikes.append(ban.strikes)
        now = ban.expiration_time / 1000 - START + pause
    (ban,) = fail(auto, [now])
    assert ban is not None
    assert lengths == [60, 120, 200, 200, 200]
    assert strikes == [1, 2, 3, 4, 5]
    assert ban.strikes == 1


async def test_after_a_ban_counting_begins_anew(store: SqliteStore) -> None:
    auto, _ = make(store, block_for=5)
    assert any(fail(auto, [0, 1, 2]))
    assert not any(fail(auto, [8, 9]))
    assert any(fail(auto, [10]))


async def test_logins_that_were_under_way_do_not_lengthen_the_ban(store: SqliteStore) -> None:
    auto, blocked = make(store)
    assert any(fail(auto, [0, 0, 0]))
    assert not any(fail(auto, [0] * 10))
    ban = blocked.get(f"IP_ADDRESS:{GUESSER}")
    assert ban is not None
    assert ban.strikes == 1


SPARED: list[tuple[str, dict[str, Any], str, AddressSource]] = [
    ("disabled", {"enabled": False}, GUESSER, "header"),
    ("direct", {}, GUESSER, "peer"),
    ("loopback", {}, "127.0.0.1", "header"),
    ("loopback-6", {}, "::1", "header"),
    ("never", {"never": ["203.0.113.0/24"]}, GUESSER, "header"),
    ("inside-a-never", {"never": ["2001:db8:1:2::7"]}, "2001:db8:1:2::9", "header"),
    ("trusted-proxy", {}, "10.0.0.9", "header"),
    ("seen-proxy", {}, "198.51.100.9", "forwarded"),
    ("no-address", {}, "/run/client.sock", "header"),
]


@pytest.mark.parametrize(
    ("options", "address", "source"), [row[1:] for row in SPARED], ids=[row[0] for row in SPARED]
)
async def test_who_is_never_banned(
    options: dict[str, Any], address: str, source: AddressSource, store: SqliteStore
) -> None:
    auto, blocked = make(store, max_failures=1, **options)
    blocked.protect([ipaddress.ip_network("10.0.0.0/24")])
    blocked.saw_proxy("198.51.100.9")
    assert auto.failed(address, "x", source, START) is None


async def test_direct_clients_are_banned_where_the_operator_says_so(store: SqliteStore) -> None:
    auto, _ = make(store, max_failures=1, direct=True)
    assert auto.failed(GUESSER, "x", "peer", START) is not None


async def test_a_guesser_who_spreads_over_the_nodes_is_banned_by_the_sum(store: SqliteStore) -> None:
    (one, _), (two, blocked) = make(store), make(store)
    assert not any(fail(one, [0, 1]))
    assert not any(fail(two, [2, 3]))
    assert await one.share(START + 10) == []
    (ban,) = await two.share(START + 10)
    assert (ban.value, ban.description) == (GUESSER, "3 failed logins in 60 s, ban 1")
    assert blocked.match_address(GUESSER) is not None
    assert await two.share(START + 10) == []


async def test_of_nodes_that_count_at_the_same_time_one_bans(store: SqliteStore) -> None:
    (one, hears), (two, tells) = make(store, max_failures=4), make(store, max_failures=4)
    fail(one, [0, 1])
    fail(two, [2, 3])
    assert await one.share(START + 3) == []
    assert len(await two.share(START + 3)) == 1
    assert not any(fail(one, [4]))
    assert await one.share(START + 5) == []  # it has not heard of the ban yet
    await tells.save()
    await hears.poll()
    assert await one.share(START + 6) == []


async def test_a_ban_that_the_other_node_has_not_made_is_made_here(store: SqliteStore) -> None:
    (gone, _), (two, _) = make(store), make(store)
    fail(gone, [0, 1])
    await gone.share(START + 1)
    await store.add_failure(GUESSER, int((START + 2) * 1000), 60_000)  # by a node that dies of it
    fail(two, [3])
    assert await two.share(START + 4) == []
    (ban,) = await two.share(START + 5)
    assert (ban.value, ban.description) == (GUESSER, "4 failed logins in 60 s, ban 1")


async def test_what_is_forgiven_or_spent_here_is_not_counted_through_the_store(store: SqliteStore) -> None:
    auto, _ = make(store, block_for=1)
    fail(auto, [0, 1], client_id="mine")
    auto.succeeded(GUESSER, "mine")
    fail(auto, [2, 3], client_id="other")
    assert await auto.share(START + 10) == []
    assert any(fail(auto, [4], client_id="other"))
    fail(auto, [6], client_id="other")
    assert await auto.share(START + 10) == []


async def test_a_broken_store_leaves_the_counting_here(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    auto, _ = make(store)
    fail(auto, [0, 1])
    await store.close()
    assert await auto.share(START + 10) == []
    assert "login failures are not shared" in caplog.text
    assert any(fail(auto, [2]))


class FailingStore(SqliteStore):
    """Fails to count failures as often as the test says."""

    def __init__(self, failures: int) -> None:
        super().__init__(":memory:")
        self.failures = failures
        self.asked = 0

    async def add_failure(self, network: str, now: int, window: int) -> int:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        return await super().add_failure(network, now, window)


async def test_what_the_store_did_not_take_is_shared_later() -> None:
    store = FailingStore(failures=1)
    (one, _), (two, _) = make(store), make(store)
    fail(one, [0, 1])
    assert await one.share(START + 1) == []
    assert await one.share(START + 2) == []
    fail(two, [3])
    assert [ban.value for ban in await two.share(START + 3)] == [GUESSER]
    await store.close()


async def test_a_ban_by_the_sum_does_not_wait_for_another_networks_failure() -> None:
    store = FailingStore(failures=0)
    (one, _), (two, _) = make(store), make(store)
    fail(one, [0, 1])
    await one.share(START + 1)
    store.failures = 1
    fail(two, [2], address="198.51.100.7")
    fail(two, [2])
    assert [ban.value for ban in await two.share(START + 2)] == [GUESSER]
    await store.close()


async def test_failures_that_are_too_old_when_the_store_is_back_ban_nobody() -> None:
    store = FailingStore(failures=3)
    auto, _ = make(store, max_failures=4)
    fail(auto, [0, 1, 2])
    assert await auto.share(START + 3) == []
    fail(auto, [70])
    assert await auto.share(START + 70) == []
    assert await store.add_failure(GUESSER, int((START + 71) * 1000), 1_000_000) == 2
    await store.close()


async def test_what_waits_for_the_store_is_bounded() -> None:
    store = FailingStore(failures=22_000)
    auto, _ = make(store, max_failures=100_000)
    for asked in (6000, 10_000):
        fail(auto, [0] * 6000)
        assert await auto.share(START) == []
        asked_before, store.asked = store.asked, 0
        assert asked_before == asked
    await store.close()


def test_the_window_is_bounded() -> None:
    window = FailureWindow()
    for number in range(30_000):
        window.failed(str(number), "x", START, 60)
    assert window.failed("0", "x", START, 60) == 1, "the least recent are forgotten"
    assert window.failed("29999", "x", START, 60) == 2
    for number in range(5000):
        window.failed("busy", f"c{number}", START, 60)
        window.forgive("busy", f"c{number}")
    assert window.discounted("busy", START, 60) == 1000
    assert window.discounted("busy", START + 60, 60) == 0
