"""`proxyproto-rs probe` on our own broker, in each mode. It leaves no session, and counts towards no block."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from proxyproto_rs.cli import main

from .backend.upstream.mosquitto import mosquitto
from .peers import running

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED, OPTIONAL, OFF = 0, 3, 4


@pytest.mark.parametrize("backend", ["amqtt", "embedded", "upstream"])
@pytest.mark.parametrize(
    ("mode", "status"),
    [("required", REQUIRED), ("optional", OPTIONAL), ("off", OFF)],
    ids=["required", "optional", "off"],
)
async def test_our_broker(mode: str, status: int, backend: str, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sections: dict[str, Any] = {"backend": backend}
        if backend == "upstream":
            server = await stack.enter_async_context(mosquitto(tmp_path / "mosquitto"))
            sections["backend"] = {"upstream": {"servers": [server.address], "proxy_protocol": "off"}}
        if backend != "amqtt":
            sections |= {"amqtt": {}, "auth": ["anonymous"]}
        listeners = {"tcp": {"proxy_protocol": mode}}
        broker = await stack.enter_async_context(running(listeners=listeners, **sections))
        host, port = broker.address()
        found = await asyncio.to_thread(main, ["probe", f"{host}:{port}", "--mqtt", "--timeout", "20"])
        assert found == status
        assert broker.service.sessions.connected == 0
