"""Blocks: how they are posted, stored and shown. Also pages, and JSON names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from proxyproto_rs.mqtt.model.paging import Paging, camel_case, to_json
from proxyproto_rs.mqtt.model.records import BlockedClient

POSTED: list[tuple[dict[str, Any], tuple[str, str, str | None]]] = [
    ({"type": "CLIENT_ID", "clientId": "dev-7"}, ("CLIENT_ID", "dev-7", None)),
    ({"type": "USERNAME", "username": "u"}, ("USERNAME", "u", None)),
    ({"type": "IP_ADDRESS", "ipAddress": "203.0.113.7"}, ("IP_ADDRESS", "203.0.113.7", None)),
    ({"type": "IP_ADDRESS", "ipAddress": "203.0.113.0/24"}, ("IP_ADDRESS", "203.0.113.0/24", None)),
    ({"type": "IP_ADDRESS", "ipAddress": "2001:DB8::0/32"}, ("IP_ADDRESS", "2001:db8::/32", None)),
    ({"type": "IP_ADDRESS", "ipAddress": "::ffff:203.0.113.7"}, ("IP_ADDRESS", "203.0.113.7", None)),
    ({"type": "IP_ADDRESS", "value": "203.0.113.7/32"}, ("IP_ADDRESS", "203.0.113.7", None)),
    (
        {"type": "REGEX", "pattern": "a+", "regexMatchTarget": "BY_USERNAME"},
        ("REGEX", "a+", "BY_USERNAME"),
    ),
]

NOT_POSTED: list[tuple[Any, str]] = [
    ([], "must be an object"),
    ({}, "type must be one of CLIENT_ID, USERNAME, IP_ADDRESS, REGEX"),
    ({"type": "MAC"}, "type must be one of"),
    ({"type": "CLIENT_ID"}, "clientId must be text"),
    ({"type": "CLIENT_ID", "clientId": 5}, "clientId must be text"),
    ({"type": "CLIENT_ID", "clientId": ""}, "value must have 1 to 255 characters"),
    ({"type": "CLIENT_ID", "clientId": "x" * 256}, "value must have 1 to 255 characters"),
    ({"type": "CLIENT_ID", "clientId": "x", "forever": 1}, "unknown key 'forever'"),
    ({"type": "CLIENT_ID", "clientId": "x", "expirationTime": "soon"}, "expirationTime must be milliseconds"),
    ({"type": "CLIENT_ID", "clientId": "x", "expirationTime": -1}, "expiration_time must be 0 or more"),
    ({"type": "CLIENT_ID", "clientId": "x", "description": 5}, "description must be text"),
    ({"type": "IP_ADDRESS", "ipAddress": "10.0.0.1/8"}, "host bits set: write 10.0.0.0/8"),
    ({"type": "IP_ADDRESS", "ipAddress": "nonsense"}, "must be an IP address or a network"),
    ({"type": "REGEX", "pattern": "a"}, "regex_match_target belongs to type REGEX"),
    ({"type": "REGEX", "pattern": "a", "regexMatchTarget": "BY_NAME"}, "regex_match_target must be one of"),
    (
        {"type": "REGEX", "pattern": "(?=a)", "regexMatchTarget": "BY_CLIENT_ID"},
        "is not a pattern RE2 can match",
    ),
    (
        {"type": "REGEX", "pattern": "(a)\\1", "regexMatchTarget": "BY_CLIENT_ID"},
        "is not a pattern RE2 can match",
    ),
]


@pytest.mark.parametrize(("body", "meant"), POSTED, ids=[str(body) for body, _ in POSTED])
def test_tbmqs_post_forms(body: dict[str, Any], meant: tuple[str, str, str | None]) -> None:
    block = BlockedClient.from_json({**body, "expirationTime": 5, "description": "why"})
    assert (block.type, block.value, block.regex_match_target) == meant
    assert (block.expiration_time, block.description) == (5, "why")


@pytest.mark.parametrize(("body", "said"), NOT_POSTED, ids=[str(body)[:60] for body, _ in NOT_POSTED])
def test_what_cannot_be_blocked_is_refused_with_a_reason(body: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        BlockedClient.from_json(body)


def test_the_key_tells_blocks_apart() -> None:
    keys = {
        BlockedClient(type="CLIENT_ID", value="x").key,
        BlockedClient(type="USERNAME", value="x").key,
        BlockedClient(type="REGEX", value="x", regex_match_target="BY_CLIENT_ID").key,
        BlockedClient(type="REGEX", value="x", regex_match_target="BY_USERNAME").key,
    }
    assert keys == {"CLIENT_ID:x", "USERNAME:x", "REGEX:BY_CLIENT_ID:x", "REGEX:BY_USERNAME:x"}


@pytest.mark.parametrize(
    ("now", "status"),
    [(99, "ACTIVE"), (100, "EXPIRED"), (149, "EXPIRED"), (150, "DELETING_SOON"), (500, "DELETING_SOON")],
)
def test_status(now: int, status: str) -> None:
    assert BlockedClient(type="USERNAME", value="u", expiration_time=100).status_at(now, 100) == status


def test_a_block_without_expiration_is_active_for_ever() -> None:
    assert BlockedClient(type="USERNAME", value="u").status_at(10**15, 1) == "ACTIVE"


def test_json_has_tbmqs_names() -> None:
    block = BlockedClient(type="REGEX", value="x", regex_match_target="BY_CLIENT_ID")
    assert list(to_json(block)) == [
        "type",
        "value",
        "expirationTime",
        "description",
        "regexMatchTarget",
        "createdAt",
        "createdBy",
        "hits",
        "lastHitAt",
        "strikes",
        "revision",
        "status",
    ]
    assert camel_case("client_ip_adr") == "clientIpAdr"


def test_pages() -> None:
    class Names(Paging):
        sort_properties = ("name",)

    page = Names(page_size=2, page=1).page_of(("c", "d"), 5)
    assert (page.total_pages, page.total_elements, page.has_next) == (3, 5, True)
    assert to_json(page) == {
        "data": ["c", "d"],
        "totalPages": 3,
        "totalElements": 5,
        "hasNext": True,
    }
    assert not Names(page_size=2, page=2).page_of(("e",), 5).has_next


@pytest.mark.parametrize("wrong", [{"page_size": 1001}, {"page": -1}, {"sort_order": "UP"}])
def test_paging_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Paging(**wrong)
