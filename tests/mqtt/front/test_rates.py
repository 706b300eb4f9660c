"""Token buckets on a made-up clock."""

from __future__ import annotations

from proxyproto_rs.mqtt.config import Rate
from proxyproto_rs.mqtt.front.rates import PublishRate


def test_a_burst_then_one_at_a_time() -> None:
    rate = PublishRate((Rate(2, 1.0),), 0.0)
    for _ in range(2):
        assert rate.delay(0.0) == 0.0
        rate.spend(0.0)
    assert rate.delay(0.0) == 0.5
    assert rate.delay(0.5) == 0.0


def test_every_rate_must_have_room() -> None:
    rate = PublishRate((Rate(10, 1.0), Rate(12, 60.0)), 0.0)
    for _ in range(10):
        rate.spend(0.0)
    for _ in range(2):
        rate.spend(1.0)
    assert 2.0 < rate.delay(1.0) < 5.0


def test_tokens_do_not_pile_up() -> None:
    rate = PublishRate((Rate(1, 1.0),), 0.0)
    assert rate.delay(1000.0) == 0.0
    rate.spend(1000.0)
    assert rate.delay(1000.0) == 1.0


def test_a_clock_that_runs_backwards_gives_no_tokens() -> None:
    rate = PublishRate((Rate(1, 1.0),), 100.0)
    rate.spend(100.0)
    assert rate.delay(50.0) == 1.0
