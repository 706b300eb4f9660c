"""A fault is logged once for each kind and minute, and always counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxyproto_rs.mqtt.telling.faults import Faults

if TYPE_CHECKING:
    import pytest


def fault(kind: type[Exception]) -> Exception:
    try:
        raise kind("x")
    except Exception as wrong:
        return wrong


def test_once_a_minute_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    faults = Faults(logging.getLogger("faults"), clock=lambda: now)
    for _ in range(3):
        faults.note(fault(ValueError), "first")
    faults.note(fault(TypeError), "another kind")
    assert [record.getMessage() for record in caplog.records] == ["first", "another kind"]
    assert caplog.records[0].exc_info
    now += 61
    faults.note(fault(ValueError), "a minute later")
    assert caplog.records[-1].getMessage() == "a minute later"
    assert faults.count == 5
