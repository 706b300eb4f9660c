"""Events that are reported once, with a count."""

from __future__ import annotations

from proxyproto_rs.mqtt.telling.folding import Fold, OncePer


def test_a_kind_is_told_after_its_time_with_its_number() -> None:
    fold: Fold[str] = Fold(10, 100)
    assert fold.add(("denied", "a"), "first", 1, 0) == []
    assert fold.add(("denied", "a"), "last", 4, 9.9) == []
    assert fold.add(("denied", "b"), "other", 1, 5) == []
    assert fold.due(9.99) == []
    assert fold.due(10) == [("last", 5)]
    assert fold.due(14.9) == []
    assert fold.add(("denied", "a"), "again", 1, 15) == [("other", 1)]
    assert fold.all() == [("again", 1)]
    assert fold.all() == []


def test_one_key_too_many_reports_the_oldest_early() -> None:
    fold: Fold[int] = Fold(10, 2)
    assert [fold.add((str(n),), n, 1, 0) for n in range(3)] == [[], [], [(0, 1)]]


def test_once_per_time_and_key() -> None:
    once = OncePer(60, 2)
    assert [once.first(("a",), now) for now in (0, 59, 60, 61)] == [True, False, True, False]
    assert [once.first((key,), 61) for key in "bca"] == [True, True, True]
