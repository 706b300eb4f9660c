"""The shipped parser and scenarios of CrowdSec find the real addresses, and no client id can make them find others.

Where CrowdSec is not installed, Python reads them: its expressions are those of RE2, and its filters are written so that
Python reads them alike.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import re2  # type: ignore[import-untyped]
import yaml

from mqtt import crowdsec
from proxyproto_rs.mqtt.model.reasons import REASONS
from proxyproto_rs.mqtt.telling import logs

from .test_fail2ban import REFUSED, log

__all__ = ["log"]

CONTRIB = Path(__file__).parents[3] / "contrib" / "crowdsec"
PARSER: dict[str, Any] = yaml.safe_load((CONTRIB / "proxyproto-rs-logs.yaml").read_text())
SCENARIOS: list[dict[str, Any]] = list(yaml.safe_load_all((CONTRIB / "proxyproto-rs-bf.yaml").read_text()))

PATTERN = re.sub(
    r"%\{(\w+):(\w+)\}",
    lambda found: f"(?P<{found[2]}>{PARSER['pattern_syntax'][found[1]]})",
    PARSER["nodes"][0]["grok"]["pattern"],
)


def true(condition: str, **meta: Any) -> bool:
    """Whether a filter lets an event through."""
    event = SimpleNamespace(Meta=SimpleNamespace(**meta), Parsed=SimpleNamespace(**meta))
    return bool(eval(condition.replace("&&", "and"), {"evt": event}))


def parsed(line: str) -> dict[str, str] | None:
    """What the parser puts into the Meta of an event."""
    found = re2.compile(PATTERN).search(line)
    if found is None:
        return None
    meta = {static["meta"]: static["value"] for static in PARSER["statics"]}
    for static in PARSER["nodes"][0]["grok"]["statics"]:
        if "value" in static:
            meta[static["meta"]] = static["value"]
        else:
            capture = static["expression"].removeprefix("evt.Parsed.")
            meta[static.get("meta", static.get("target"))] = found[capture]
    return meta


def test_the_parser_has_what_crowdsec_asks_for() -> None:
    assert PARSER["onsuccess"] == "next_stage"
    assert true(PARSER["filter"], program="proxyproto-rs")
    assert not true(PARSER["filter"], program="sshd")
    assert "%{" not in PATTERN, "each pattern is one of its own"
    assert PARSER["nodes"][0]["grok"]["apply_on"] == "message"


@pytest.mark.parametrize("with_time", [True, False])
def test_each_refused_client_is_found_by_its_real_address(
    log: str, with_time: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lines = log.splitlines()
    if not with_time:  # as the journal has them
        lines = [re.sub(r"^\S+ \S+ ", "", line) for line in lines]
    found = [meta for line in lines if (meta := parsed(line)) is not None]
    assert [(meta["source_ip"], meta["reason"]) for meta in found] == [row[:2] for row in REFUSED]
    for meta in found:
        assert (meta["service"], meta["log_type"]) == ("mqtt", "mqtt_refused")
        assert bool(meta["evt.StrTime"]) is with_time
    assert isinstance(caplog.handler.formatter, logs.TextFormatter)


@pytest.mark.parametrize("kind", ["proxyproto-rs", "syslog"])
def test_crowdsec_itself_finds_the_real_addresses(log: str, kind: str, tmp_path: Path) -> None:
    lines = log.splitlines()
    if kind == "syslog":  # as the journal has them
        lines = [re.sub(r"^\S+ \S+ ", "Nov 27 21:18:02 host proxyproto-rs[123]: ", line) for line in lines]
    (tmp_path / "broker.log").write_text("".join(f"{line}\n" for line in lines))
    with crowdsec.installed(tmp_path) as itself:
        itself.start()
        told = itself.explain(tmp_path / "broker.log", kind)
    found = [dict(re.findall(r"create evt\.Meta\.(\w+) : (.*)", one)) for one in told]
    assert sorted((meta["source_ip"], meta["reason"]) for meta in found if meta) == sorted(
        row[:2] for row in REFUSED
    )
    for meta in found:
        assert not meta or (meta["service"], meta["log_type"]) == ("mqtt", "mqtt_refused")


def test_the_scenarios_take_each_its_own_reasons() -> None:
    taken = {
        scenario["name"]: {
            reason for reason in REASONS if true(scenario["filter"], log_type="mqtt_refused", reason=reason)
        }
        for scenario in SCENARIOS
    }
    assert taken == {
        "proxyproto-rs/mqtt-bf": {"bad-credentials"},
        "proxyproto-rs/mqtt-probing": {"malformed-connect", "no-connect", "protocol-version"},
    }
    for scenario in SCENARIOS:
        assert scenario["type"] == "leaky"
        assert scenario["groupby"] == "evt.Meta.source_ip"
        assert scenario["capacity"] > 0
        assert re.fullmatch(r"\d+[sm]", scenario["leakspeed"])
        assert re.fullmatch(r"\d+[sm]", scenario["blackhole"])
        assert scenario["labels"]["remediation"] is True
        # CrowdSec 1.4 takes no lists here, and does not start with a scenario that has one.
        assert not any(isinstance(label, (list, dict)) for label in scenario["labels"].values())
        assert not true(scenario["filter"], log_type="other", reason="bad-credentials")
