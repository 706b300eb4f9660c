"""CrowdSec's decisions: how they are read, and which networks they keep out at what time. Time is an argument."""

from __future__ import annotations

import ipaddress
import json
import random
import time
from collections import deque
from typing import Any

import pytest

from mqtt.lapi import decision
from proxyproto_rs.mqtt.tables.blocklists.decisions import Decisions, parse, parse_go_duration
from proxyproto_rs.mqtt.tables.blocklists.networks import Protected, UnusableList

SCOPES = ("Ip", "Range")
NOBODY = Protected(())


def answer(new: Any = None, deleted: Any = None) -> bytes:
    return json.dumps({"new": new, "deleted": deleted}).encode()


def take(
    table: Decisions, new: Any = None, deleted: Any = None, *, now: float = 0.0, everything: bool = False
) -> tuple[int, int]:
    return table.take(parse(answer(new, deleted), SCOPES, NOBODY), now, everything=everything)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3h59m58.123456789s", 3 * 3600 + 59 * 60 + 58.123456789),
        ("-13h2m0.5s", -(13 * 3600 + 120 + 0.5)),
        ("0s", 0.0),
        ("0", 0.0),
        ("168h0m0s", 604800.0),
        ("1h5s", 3605.0),
        ("2m0s", 120.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("12µs", 12e-6),
        ("12μs", 12e-6),
        ("7us", 7e-6),
        ("9ns", 9e-9),
        ("+2m", 120.0),
        ("2562047h47m16.854775807s", 2562047 * 3600 + 47 * 60 + 16.854775807),
    ],
)
def test_durations_of_go(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-", "4", "h", "1d", "1h ", " 1h", "1h-2m", "1..5s", None, 3.5, "1s" * 100]
)
def test_what_is_no_duration_of_go(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_go_duration(text)


def test_an_address_is_kept_out_until_the_last_of_its_decisions_ends() -> None:
    table, first, second = Decisions(), decision("192.0.2.1"), decision("192.0.2.1", duration="24h")
    assert take(table, [first, second]) == (1, 0)
    assert take(table, deleted=[second]) == (0, 0)
    assert "192.0.2.1" in table.addresses
    assert take(table, deleted=[{**first, "duration": "-5s"}]) == (0, 1)
    assert "192.0.2.1" not in table.addresses
    assert take(table, deleted=[first, second]) == (0, 0), "deletions repeat"


def test_looking_through_many_decisions_lets_the_event_loop_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    table, pauses = Decisions(), list[float]()
    many = [decision(f"100.64.{number >> 8}.{number & 255}") for number in range(3 * 2048)]
    take(table, many)
    monkeypatch.setattr(time, "sleep", pauses.append)
    table.expire(0.0)
    assert len(pauses) == 3


def test_decisions_end_by_the_clock_that_is_given() -> None:
    table = Decisions()
    take(table, [decision("192.0.2.1", duration="1h"), decision("192.0.2.1", duration="2h")], now=1000.0)
    take(table, [decision("192.0.2.2", duration="3h")], now=1000.0)
    table.expire(1000 + 3600)
    assert "192.0.2.1" in table.addresses
    table.expire(1000 + 7199)
    assert "192.0.2.1" in table.addresses
    table.expire(1000 + 7200)
    assert "192.0.2.1" not in table.addresses
    assert "192.0.2.2" in table.addresses
    assert len(table) == 1


def test_a_decision_that_is_told_of_again_is_prolonged_and_may_move() -> None:
    table, told = Decisions(), decision("192.0.2.1", duration="1h")
    take(table, [told])
    assert take(table, [{**told, "duration": "2h"}], now=1800.0) == (0, 0)
    table.expire(3600.0)
    assert "192.0.2.1" in table.addresses
    assert take(table, [{**told, "value": "192.0.2.2"}], now=3601.0) == (1, 1)
    assert list(table.addresses) == ["192.0.2.2"]
    assert take(table, [{**told, "value": "192.0.2.2", "duration": "1m"}], now=3601.0) == (0, 0)
    table.expire(3662.0)
    assert not len(table)


def test_with_everything_what_is_not_named_ends() -> None:
    table, stays, goes = Decisions(), decision("192.0.2.1"), decision("2001:db8::/32", scope="Range")
    assert take(table, [stays, goes], everything=True) == (2, 0)
    assert "2001:db8::7" in table.addresses
    assert take(table, [stays], everything=True) == (0, 1)
    assert list(table.addresses) == ["192.0.2.1"]
    assert take(table, everything=True) == (0, 1)


def test_one_network_has_one_spelling() -> None:
    table = Decisions()
    told = [
        decision("192.0.2.1"),
        decision("192.0.2.1/32", scope="Range"),
        decision("::ffff:192.0.2.1"),
        decision("2001:DB8:0::1"),
        decision("2001:db8::1/128", scope="range"),
        decision("198.51.100.7/24", scope="Range"),
    ]
    assert take(table, told) == (3, 0)
    assert take(table, deleted=told[:2]) == (0, 0)
    assert "192.0.2.1" in table.addresses
    assert sorted(table.addresses) == ["192.0.2.1", "198.51.100.0/24", "2001:db8::1"]


def test_only_bans_of_the_scopes_asked_for_count_and_the_others_are_told() -> None:
    told = [
        decision("192.0.2.1", type="captcha"),
        decision("192.0.2.2", type="captcha"),
        decision("FR", scope="Country"),
        decision("192.0.2.3", simulated=True),
        decision("192.0.2.4", type="BAN", scope="ip"),
        decision("192.0.2.256"),
        decision("192.0.02.5"),
        decision("192.0.2.6", duration="soon"),
        decision("192.0.2.7", id=None),
        "no object",
    ]
    pulled = parse(answer(told), SCOPES, NOBODY)
    assert [network for _, network, _ in pulled.new] == ["192.0.2.4"]
    assert pulled.ignored.counts == {
        "type 'captcha'": 2,
        "scope 'Country'": 1,
        "simulated": 1,
        "no address or no duration": 4,
        "no decision": 1,
    }
    assert pulled.ignored.first["type 'captcha'"] == "192.0.2.1"
    assert parse(answer([decision("192.0.2.0/24", scope="Range")]), ("Ip",), NOBODY).new == deque()


def test_a_new_decision_without_time_left_is_none() -> None:
    table, told = Decisions(), decision("192.0.2.1")
    take(table, [told])
    assert take(table, [{**told, "duration": "-1s"}]) == (0, 1)


def test_no_list_shuts_out_a_proxy_or_loopback() -> None:
    protected = Protected([ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2001:db8::5/128")])
    out = [
        "10.0.0.7",
        "10.0.0.0/24",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::5",
        "2001:db8::/64",
        "127.0.0.0/8",
    ]
    for network in out:
        assert protected.covers(network), network
    for network in ["10.0.1.0", "10.0.1.0/24", "2001:db8::6", "127.0.0.1", "128.0.0.0/1"]:
        assert not protected.covers(network), network
    told = [decision("10.0.0.0/8", scope="Range"), decision("192.0.2.1")]
    pulled = parse(answer(told), SCOPES, protected)
    assert [network for _, network, _ in pulled.new] == ["192.0.2.1"]
    assert pulled.ignored.first == {"a trusted proxy or loopback would be kept out": "10.0.0.0/8"}


@pytest.mark.parametrize(
    "data",
    [
        b'{"new":null,"deleted":null}',
        b'{"deleted":[],"new":[]}',
        b"{}",
        b' \n{ "new" :\t[ ] , "links" : {"a":[1,2]}, "deleted" : null } \r\n',
        b'{"new":null}',
    ],
)
def test_an_answer_without_decisions(data: bytes) -> None:
    pulled = parse(data, SCOPES, NOBODY)
    assert (list(pulled.new), pulled.deleted) == ([], [])


ONE = answer([decision("192.0.2.1")], [decision("192.0.2.2"), decision("192.0.2.3")])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"<html><body>502 Bad Gateway</body></html>",
        b'{"new":5}',
        b'{"new":{"id":1}}',
        b'{"new":[1',
        b'{"new":[}',
        b'{"new":[1,]}',
        b'{"new"',
        b'{"deleted":[{"value":"192.0.2.1"}]}',
        b'{"new":null} and more',
        b'{"new":\xff}',
        b'{"new":' + b"[" * 100_000,
    ],
)
def test_what_is_no_answer_at_all(data: bytes) -> None:
    with pytest.raises(UnusableList, match="is no answer of CrowdSec: "):
        parse(data, SCOPES, NOBODY)


def test_an_answer_that_is_cut_off_is_none() -> None:
    assert len(parse(ONE, SCOPES, NOBODY).deleted) == 2
    for length in range(len(ONE)):
        with pytest.raises(UnusableList):
            parse(ONE[:length], SCOPES, NOBODY)


def test_items_are_read_as_json_reads_them() -> None:
    told = [decision("192.0.2.1", scenario='a "quoted" ]}, text\u2028'), decision("192.0.2.2")]
    for indent in (None, 1):
        data = json.dumps({"deleted": told, "new": told}, indent=indent).encode()
        pulled = parse(data, SCOPES, NOBODY)
        assert [key for key, _, _ in pulled.new] == pulled.deleted == [str(one["id"]) for one in told]


def test_any_order_of_changes_gives_what_a_plain_model_gives() -> None:
    chosen = random.Random(7)
    table, model = Decisions(), dict[str, tuple[str, float]]()
    now, known = 0.0, [decision(f"192.0.2.{number % 9}") for number in range(40)]
    for _ in range(400):
        now += chosen.choice((0, 1, 600))
        new = [{**one, "duration": f"{chosen.randrange(1, 3000)}s"} for one in chosen.sample(known, 4)]
        deleted = chosen.sample(known, 3)
        everything = chosen.random() < 0.05
        take(table, new, None if everything else deleted, now=now, everything=everything)
        if everything:
            model = {}
        for one in new:
            model[str(one["id"])] = (one["value"], now + parse_go_duration(one["duration"]))
        for one in () if everything else deleted:
            model.pop(str(one["id"]), None)
        model = {key: (network, end) for key, (network, end) in model.items() if end > now}
        expected = {network for network, _ in model.values()}
        assert {*table.addresses} == expected
        assert len(table) == len(expected)
