"""`proxyproto-rs explain` knows every code, and the pages and the Rust core say the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from interop.pages import DOCS, read
from proxyproto_rs import Listener
from proxyproto_rs.cli import main
from proxyproto_rs.cli.explain import known
from proxyproto_rs.cli.header_faults import HEADER_FAULTS, outcome_of, text_of
from proxyproto_rs.cli.rules import RULES
from proxyproto_rs.exceptions import REASONS
from proxyproto_rs.explanations import ACCEPTED, ENDINGS, LOGINS, REFUSED

if TYPE_CHECKING:
    from proxyproto_rs.explanations import Explanation

PAGE = "reference/outcomes.md"

TABLES = {
    "Served": ACCEPTED,
    "Refused by a port": REFUSED,
    "Refused by the MQTT broker": LOGINS,
    "How sessions of the MQTT broker end": ENDINGS,
}


def section(heading: str) -> str:
    return read(PAGE).split(f"\n### {heading}\n")[1].strip().split("\n\n")[0]


def rendered(table: dict[str, Explanation]) -> str:
    rows = [f"| `{row.code}` | {row.meaning} | {row.cause} | {row.remedy} |" for row in table.values()]
    return "\n".join(["| code | it means | because | do |", "|---|---|---|---|", *rows])


@pytest.mark.parametrize(("heading", "table"), TABLES.items(), ids=list(TABLES))
def test_the_page_shows_the_table(heading: str, table: dict[str, Explanation]) -> None:
    assert section(heading) == rendered(table)


def test_the_page_shows_what_can_be_wrong_with_a_header() -> None:
    rows = [
        f"| `{code}` | {text_of(code)} | {', '.join(fault.rules)} | `{outcome_of(code)}` | {fault.remedy} |"
        for code, fault in HEADER_FAULTS.items()
    ]
    head = ["| code | what is wrong | rules | counted as | the sender must |", "|---|---|---|---|---|"]
    assert section("Headers that are not valid") == "\n".join([*head, *rows])


def test_every_outcome_of_a_listener_is_explained_in_its_order() -> None:
    with Listener("127.0.0.1", 0, trusted=[]) as listener:
        assert [*ACCEPTED, *REFUSED] == list(listener.stats())


def test_every_code_of_a_header_is_explained_in_its_order() -> None:
    assert list(HEADER_FAULTS) == list(REASONS)


def test_rules_of_codes_are_those_that_the_core_names() -> None:
    core = (DOCS.parent / "rust/codec/src/error.rs").read_text()
    named = {
        match["code"]: tuple(re.findall(r"\b[RC]\d+\b", match["doc"]))
        for match in re.finditer(r"/// (?P<doc>.*)\n +\w+, \w+, \"(?P<code>[\w-]+)\", \"", core)
    }
    assert named == {code: fault.rules for code, fault in HEADER_FAULTS.items()}


def test_every_reason_of_the_broker_is_explained() -> None:
    reasons = pytest.importorskip("proxyproto_rs.mqtt.model.reasons")
    assert set(LOGINS) == set(reasons.REASONS) - set(REFUSED)
    assert list(ENDINGS) == list(reasons.DISCONNECT_REASONS)


def test_rules_are_those_of_the_page() -> None:
    page = read("reference/rules.md")
    rules = dict(re.findall(r"^\| (R\d+) [MSP] \| (.+?) \| `\S+` \| `\S+` \|$", page, re.M))
    cases = re.findall(r"^\| (C\d+) \| (.+?) \| (.+?) \|$", page, re.M)
    assert {**rules, **{number: f"{case}: {reading}" for number, case, reading in cases}} == RULES


@pytest.mark.parametrize("word", known())
def test_every_word_is_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == 0
    assert capsys.readouterr().out.startswith(f"{word}: ")


@pytest.mark.parametrize("word", ["missing-header:", "Missing-Header", "r14"])
def test_a_word_is_found_as_people_paste_it(word: str) -> None:
    assert main(["explain", word]) == 0


def test_a_reason_of_two_places_is_explained_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "rate-limited"]) == 0
    out = capsys.readouterr().out
    assert "rate-limited: a Listener refused the connection\n" in out
    assert "rate-limited: a session of the MQTT broker ended\n" in out


def test_an_unknown_word_is_status_1_and_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "mising-header"]) == 1
    assert "Near it: missing-header" in capsys.readouterr().err


def test_a_hostile_word_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "\x1b[31mred\u202e"]) == 1
    assert capsys.readouterr().err.isascii()
    assert main(["explain", "x" * 100_000]) == 1
    assert len(capsys.readouterr().err) < 300


def test_without_a_word_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert set(known()) <= set(capsys.readouterr().out.split())
