"""`proxyproto-rs probe` on our own broker, in each mode. It leaves no session, and counts towards no block."""

from __future__ import annotations

import asyncio

import pytest

from proxyproto_rs.cli import main

from .peers import running

REQUIRED, OPTIONAL, OFF = 0, 3, 4


@pytest.mark.parametrize(
    ("mode", "status"),
    [("required", REQUIRED), ("optional", OPTIONAL), ("off", OFF)],
    ids=["required", "optional", "off"],
)
async def test_our_broker(mode: str, status: int) -> None:
    async with running(listeners={"tcp": {"proxy_protocol": mode}}) as broker:
        host, port = broker.address()
        found = await asyncio.to_thread(main, ["probe", f"{host}:{port}", "--mqtt", "--timeout", "20"])
        assert found == status
        assert broker.service.sessions.connected == 0
