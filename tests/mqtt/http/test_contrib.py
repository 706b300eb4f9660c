"""The alert rules and the dashboard of contrib/ ask for metrics that a live broker has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mqtt.peers import connect, log_in

from .asking import serving

CONTRIB = Path(__file__).parents[3] / "contrib"
RULES = CONTRIB / "prometheus" / "proxyproto-rs.rules.yml"
DASHBOARD = CONTRIB / "grafana" / "proxyproto-rs.json"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)

SOMETIMES = {
    "proxyproto_mqtt_upstream_up",
    "proxyproto_mqtt_upstream_connections",
    "proxyproto_mqtt_certificate_expiry_timestamp_seconds",
    "proxyproto_mqtt_blocklist_read_successful",
}
"""Those of servers behind, of ports with TLS, and of lists."""


async def scraped() -> str:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev")):
        return (await api.ask("GET", "/metrics", token=None)).text


def promtool(*arguments: str, given: str = "") -> str:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("file", [RULES, DASHBOARD], ids=["alerts", "dashboard"])
async def test_they_ask_for_metrics_that_there_are(file: Path) -> None:
    asked = set(re.findall(r"\b(?:proxyproto_(?!rs\b)|process_)\w+\b", file.read_text()))  # noqa: ASYNC240 (a small file)
    there = set(re.findall(r"^(\w+)[{ ]", await scraped(), re.M))
    assert asked
    assert asked - SOMETIMES <= there


async def test_they_ask_for_labels_that_there_are() -> None:
    text = await scraped()
    for file in (RULES, DASHBOARD):
        for name, label, value in re.findall(
            r'(proxyproto_\w+)\{[^}]*?\b(\w+)=\\?"([\w-]+)\\?"', file.read_text()
        ):
            assert re.search(rf'^{name}\{{.*{label}="{value}"', text, re.M), (name, label, value)


def test_the_dashboard_is_one() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert all(target["expr"] for panel in panels for target in panel["targets"])


@needs_promtool
async def test_promtool_likes_the_metrics() -> None:
    # It would like some totals to have other names; ours are promised.
    assert "error" not in promtool("check", "metrics", given=await scraped())


@needs_promtool
def test_each_alert_is_raised_by_what_it_is_for(tmp_path: Path) -> None:
    promtool("check", "rules", str(RULES))
    test = tmp_path / "alerts.test.yml"
    test.write_text((Path(__file__).parent / "alerts.test.yml").read_text().replace("RULES", str(RULES)))
    promtool("test", "rules", str(test))
