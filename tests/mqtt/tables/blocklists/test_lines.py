"""Lists in text: what is a line, what is no list, and what a new text changes."""

from __future__ import annotations

import ipaddress

import pytest

from proxyproto_rs.mqtt.tables.blocklists import lines, networks
from proxyproto_rs.mqtt.tables.blocklists.lines import Lines, parse
from proxyproto_rs.mqtt.tables.blocklists.networks import Protected, UnusableList

NOBODY = Protected(())


def test_the_lines_of_well_known_lists() -> None:
    data = (
        "\ufeff; Spamhaus DROP List\r\n"
        "1.10.16.0/20 ; SBL256894\r\n"
        "# a comment\n"
        "\n"
        "   192.0.2.7   # this host\n"
        "192.0.2.7/32\tagain\n"
        "2001:DB8::/32\n"
        "198.51.100.7/24"
    ).encode()
    found, ignored = parse(data, NOBODY)
    assert found == {"1.10.16.0/20", "192.0.2.7", "2001:db8::/32", "198.51.100.0/24"}
    assert not ignored.counts


def test_a_wrong_line_is_left_out_and_told_by_its_number() -> None:
    found, ignored = parse(b"192.0.2.1\nnonsense here\n192.0.2.2\n192.0.2.300\n", NOBODY)
    assert found == {"192.0.2.1", "192.0.2.2"}
    assert ignored.counts == {"no address and no network": 2}
    assert ignored.first == {"no address and no network": "line 2: 'nonsense'"}


@pytest.mark.parametrize(
    "data", [b"<html>\n<body>\nnot found\n", b"\x00\xff\x80" * 1000, b"x" * 100_000, b"192.0.2.1\nx\ny\n"]
)
def test_what_is_no_list_changes_nothing(data: bytes) -> None:
    table = Lines()
    table.take(b"192.0.2.9", NOBODY)
    with pytest.raises(UnusableList, match="is no list of networks, one a line"):
        table.take(data, NOBODY)
    assert list(table.addresses) == ["192.0.2.9"]


def test_an_empty_list_is_one() -> None:
    table = Lines()
    assert table.take(b"192.0.2.1\n192.0.2.2", NOBODY)[:2] == (2, 0)
    assert table.take(b"192.0.2.2\n192.0.2.3", NOBODY)[:2] == (1, 1)
    assert table.take(b"# nobody today\n", NOBODY)[:2] == (0, 2)
    assert not len(table.addresses)


def test_a_proxy_is_never_kept_out() -> None:
    found, ignored = parse(b"10.0.0.0/8\n192.0.2.1\n", Protected([ipaddress.ip_network("10.1.0.0/16")]))
    assert found == {"192.0.2.1"}
    assert ignored.first == {"a trusted proxy or loopback would be kept out": "line 1: 10.0.0.0/8"}


def test_a_list_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_NETWORKS", 3)
    with pytest.raises(UnusableList, match="has more than 3 networks"):
        parse(b"192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n", NOBODY)
    assert networks.MOST_NETWORKS == 1_000_000
