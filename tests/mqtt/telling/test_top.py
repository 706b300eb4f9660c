"""The busiest addresses in bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyproto_rs.mqtt.telling.analytics import Analytics, Minute, TopEntry
from proxyproto_rs.mqtt.telling.top import Top

NOON = 43_200.0


def test_counts_halve_in_a_half_life() -> None:
    top = Top(half_life=3600)
    top.add("old", 0, 8)
    top.add("new", 3600, 3)
    assert top.largest(3600) == [("old", 4.0), ("new", 3.0)]
    assert top.largest(7200) == [("old", 2.0), ("new", 1.5)]


def test_weeks_of_uptime_do_not_overflow() -> None:
    top = Top(half_life=1)
    for second in range(0, 5000, 100):
        top.add("a", second)
        top.add(f"b{second}", second)
    assert top.largest(4900)[:2] == [("a", 1.0), ("b4900", 1.0)]


def test_a_clock_that_runs_backwards_counts_as_standing_still() -> None:
    top = Top()
    top.add("a", 100)
    top.add("a", 0)
    assert top.largest(0) == [("a", 2.0)]


@given(st.lists(st.integers(0, 20), max_size=300), st.integers(1, 8))
def test_no_count_is_too_small_and_none_too_large_by_more_than_the_smallest(
    keys: list[int], capacity: int
) -> None:
    top = Top(capacity)
    for key in keys:
        top.add(str(key), 0)
    assert len(top) <= capacity
    counted = dict(top.largest(0))
    smallest = min(counted.values(), default=0)
    for key in set(keys):
        true = keys.count(key)
        if str(key) in counted:
            assert true <= counted[str(key)] <= true + smallest
        else:
            assert true <= smallest


def test_the_noisiest_are_found_among_a_hundred_thousand_strangers() -> None:
    chance = random.Random(7)
    top = Top()
    events = [f"noisy-{n % 3}" for n in range(3000)] + [f"stranger-{n}" for n in range(100_000)]
    chance.shuffle(events)
    for event in events:
        top.add(event, 0)
    assert len(top) == 1000
    assert {key for key, _ in top.largest(0)[:3]} == {"noisy-0", "noisy-1", "noisy-2"}


def test_top_by_address_and_by_network() -> None:
    analytics = Analytics()
    for last, count in ((1, 3), (2, 5), (3, 1)):
        analytics.refused(f"203.0.113.{last}", "bad-credentials", NOON, count)
    analytics.refused("2001:db8::1", "denied", NOON, 2)
    analytics.refused("2001:db8::2", "denied", NOON, 2)
    analytics.connected("198.51.100.1", NOON)
    assert analytics.top("refused", NOON, limit=2) == (
        TopEntry("203.0.113.2", 5.0),
        TopEntry("203.0.113.1", 3.0),
    )
    assert analytics.top("refused", NOON, prefix=24) == (
        TopEntry("203.0.113.0/24", 9.0),
        TopEntry("2001:db8::/64", 4.0),
    )
    assert analytics.top("connects", NOON) == (TopEntry("198.51.100.1", 1.0),)


def test_open_connections_count_for_sessions_and_bytes() -> None:
    analytics = Analytics()
    analytics.disconnected("203.0.113.1", 100, NOON)
    live = [("203.0.113.1", 50), ("203.0.113.2", 120), ("203.0.113.2", 5)]
    assert analytics.top("bytes", NOON, live=live) == (
        TopEntry("203.0.113.1", 150.0),
        TopEntry("203.0.113.2", 125.0),
    )
    assert analytics.top("sessions", NOON, live=live) == (
        TopEntry("203.0.113.2", 2.0),
        TopEntry("203.0.113.1", 1.0),
    )


def test_an_unknown_order_or_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="by must be one of connects, refused, sessions, bytes"):
        Analytics().top("colour", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prefix must be 32 or 24 \(got 8\)"):
        Analytics().top("bytes", 0, prefix=8)


def test_a_day_minute_by_minute() -> None:
    analytics = Analytics()
    analytics.connected("203.0.113.1", NOON)
    analytics.refused("203.0.113.1", "denied", NOON + 59, 3)
    analytics.sample(1, 500, NOON + 59)
    analytics.refused("203.0.113.1", "denied", NOON + 60)
    analytics.sample(2, 700, NOON + 61)
    first = int(NOON * 1000)
    assert analytics.history() == (
        Minute(first, accepted=1, refused={"denied": 3}, sessions=1, bytes=500),
        Minute(first + 60_000, refused={"denied": 1}, sessions=2, bytes=200),
    )
    analytics.connected("203.0.113.1", NOON + 86_400)
    assert [minute.ts for minute in analytics.history()] == [first + 60_000, first + 86_400_000]


def test_a_days_minutes_are_bounded() -> None:
    analytics = Analytics()
    for minute in range(3000):
        analytics.connected("203.0.113.1", NOON + minute * 60)
    assert len(analytics.history()) == 1440
