"""Access rules: the first that matches decides, globs match whole texts, in linear time."""

from __future__ import annotations

from typing import Any

import pytest

from proxyproto_rs.mqtt.config import AccessRule
from proxyproto_rs.mqtt.model.networks import client_network, parse_address, parse_network
from proxyproto_rs.mqtt.policy.access import AccessRules


def rules(*written: dict[str, Any]) -> AccessRules:
    return AccessRules([AccessRule.model_validate(rule) for rule in written])


ADMIN_FROM_INSIDE = rules(
    {"users": ["admin"], "networks": ["10.0.0.0/8", "fd00::/8"], "action": "allow"},
    {"users": ["admin"], "action": "deny"},
)

ADMIN = [
    ("admin", "10.1.2.3", "allow", 0),
    ("admin", "fd00::7", "allow", 0),
    ("admin", "203.0.113.7", "deny", 1),
    ("admin", "/run/client.sock", "deny", 1),
    ("administrator", "203.0.113.7", "allow", None),
    ("Admin", "203.0.113.7", "allow", None),
    (None, "203.0.113.7", "allow", None),
]


@pytest.mark.parametrize(("username", "address", "decision", "rule"), ADMIN)
def test_admin_only_from_inside(username: str | None, address: str, decision: str, rule: int | None) -> None:
    assert ADMIN_FROM_INSIDE.decide("dev", username, "tcp", address) == (decision, rule)


MATCHES = [
    ({"clients": ["dev-*"]}, True),
    ({"clients": ["dev-?"]}, True),
    ({"clients": ["dev"]}, False),
    ({"clients": ["x", "*7"]}, True),
    ({"clients": ["DEV-7"]}, False),
    ({"clients": ["dev.7"]}, False),
    ({"clients": ["[d]ev-7"]}, False),
    ({"clients": []}, False),
    ({"users": [""]}, False),
    ({"users": ["u*"], "listeners": ["ssl"]}, False),
    ({"users": ["u*"], "listeners": ["t?p"]}, True),
    ({"networks": []}, False),
    ({"networks": ["203.0.113.0/24"], "clients": ["*"], "users": ["*"]}, True),
    ({}, True),
]


@pytest.mark.parametrize(("rule", "met"), MATCHES, ids=[str(rule) for rule, _ in MATCHES])
def test_every_key_of_a_rule_must_match(rule: dict[str, Any], met: bool) -> None:
    decision, _ = rules({**rule, "action": "deny"}).decide("dev-7", "user", "tcp", "203.0.113.7")
    assert (decision == "deny") == met


def test_a_client_without_a_name_matches_the_empty_name() -> None:
    assert rules({"users": [""], "action": "deny"}).decide("x", None, "tcp", "::1")[0] == "deny"


def test_no_rules_let_everybody_in() -> None:
    assert AccessRules().decide("x", None, "tcp", "::1") == ("allow", None)


def test_a_hostile_client_id_does_not_hang_a_glob() -> None:
    globs = rules({"clients": ["*a*a*a*a*a*a*a*a*b"], "action": "deny"})
    assert globs.decide("a" * 65535, None, "tcp", "::1") == ("allow", None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::0", "2001:db8::"),
        ("/run/x", None),
        ("", None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    parsed = parse_address(text)
    assert (None if parsed is None else str(parsed)) == address


def test_a_client_is_an_address_or_a_prefix() -> None:
    for text, network in (("203.0.113.7", "203.0.113.7/32"), ("2001:db8::7", "2001:db8::/64")):
        parsed = parse_address(text)
        assert parsed is not None
        assert client_network(parsed, 64) == parse_network(network)
