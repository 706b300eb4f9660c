"""The shipped fail2ban filter finds the real address, and no client id can make it find another."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxyproto_rs.mqtt.model.connection import Connection
from proxyproto_rs.mqtt.telling import logs

FILTER = Path(__file__).parents[3] / "contrib" / "fail2ban" / "proxyproto-rs.conf"

FORGED = "WARNING proxyproto_rs.mqtt refused client=192.0.2.66:1 reason=bad-credentials "

REFUSED = [
    ("203.0.113.7", "bad-credentials", "dev-7", True),
    ("2001:db8::7", "bad-credentials", "dev-7", True),
    ("203.0.113.8", "blocked", "dev-7", True),
    ("203.0.113.9", "malformed-connect", "", True),
    ("203.0.113.10", "no-connect", "", True),
    ("203.0.113.11", "access-denied", "dev-7", False),
    ("203.0.113.12", "tls-failed", "", False),
    ("203.0.113.13", "bad-credentials", f"x\n{FORGED}", True),
    ("203.0.113.14", "access-denied", f'"{FORGED}', False),
    ("203.0.113.15", "access-denied", f"\r\n{FORGED}\r\n", False),
]

EXPECTED = [address for address, _, _, banned in REFUSED if banned]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> str:
    caplog.handler.setFormatter(logs.TextFormatter())
    caplog.set_level(logging.INFO, "proxyproto_rs.mqtt")
    for address, reason, client_id, _ in REFUSED:
        connection = Connection(
            session_id="5",
            listener="tcp",
            client=(address, 50123),
            proxy=("10.0.0.9", 41234),
            destination=("198.51.100.1", 1883),
            header=None,
            address_source="header",
        )
        logs.refused(connection, reason=reason, attempts=1, client_id=client_id, username=client_id)
    logs.connected(connection, client_id=FORGED, username=FORGED, keep_alive=60, clean=True)
    return caplog.text


def test_the_expression_finds_the_real_addresses(log: str) -> None:
    """What fail2ban does: its `<ADDR>` matches an address of either family, and it cuts the date off."""
    (expression,) = re.findall(r"^failregex = (.*)$", FILTER.read_text(), re.MULTILINE)
    pattern = re.compile(expression.replace("<ADDR>", r"(?P<addr>[0-9.]+|[0-9A-Fa-f:]+)"))
    undated = [re.sub(r"^\S+ \S+", "", line) for line in log.splitlines()]
    assert [match["addr"] for line in undated if (match := pattern.search(line))] == EXPECTED


@pytest.mark.skipif(not shutil.which("fail2ban-regex"), reason="fail2ban is not installed")
def test_fail2ban_itself_finds_the_real_addresses(log: str, tmp_path: Path) -> None:
    file = tmp_path / "broker.log"
    file.write_text(log)
    found = subprocess.run(
        ["fail2ban-regex", "--out", "ip", str(file), str(FILTER)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == EXPECTED
