"""Many sessions come and go, and nothing of them is left. What one costs: `benches/mqtt_idle.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest

from mqtt.peers import DISCONNECT, WELCOME, connect, dial, running
from proxyproto_rs.mqtt.front.visitor import Visitor
from proxyproto_rs.mqtt.model.session_record import SessionRecord

from .mosquitto import mosquitto
from .scripted import behind
from .test_channels import listener

if TYPE_CHECKING:
    from pathlib import Path

    from interop.certificates import Certificates

COUNT = 150


def alive(*kinds: type[Any]) -> list[int]:
    """How many objects of these types there are."""
    gc.collect()
    objects = gc.get_objects()
    return [sum(type(one) is kind for one in objects) for kind in kinds]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", ["tcp", "ssl"])
async def test_sessions_leave_nothing_behind(kind: str, certificates: Certificates, tmp_path: Path) -> None:
    context = certificates.client_context() if kind == "ssl" else None
    async with (
        mosquitto(tmp_path / "mosquitto", "max_connections -1") as server,
        running(**behind(server.address), **listener(kind, certificates)) as broker,
    ):
        sessions = broker.service.sessions
        address = broker.address(kind)
        # The server has been looked at once it has let somebody in.
        async with dial(address, connect("first").encode(), ssl=context) as client:
            assert await client.packet() == WELCOME
        await broker.until(lambda: len(sessions) == 0)
        before = alive(Visitor, SessionRecord)
        open_before = descriptors()
        for _ in range(2):
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        dial(address, connect(f"dev-{number}", keep_alive=0).encode(), ssl=context)
                    )
                    for number in range(COUNT)
                ]
                assert {await client.packet() for client in clients} == {WELCOME}
                await broker.until(lambda: sessions.connected == COUNT)
                assert broker.service.front.numbers()["sessions"] == COUNT
                assert alive(Visitor, SessionRecord) == [count + COUNT for count in before]
                # The client's, the front's for it, the front's to the server.
                await broker.until(lambda: descriptors() == open_before + 3 * COUNT)
                for client in clients[::2]:
                    client.send(DISCONNECT)
            await broker.until(lambda: len(sessions) == 0)
            numbers = broker.service.front.numbers()
            assert (numbers["sessions"], numbers["servers"][0]["connections"]) == (0, 0)
            await asyncio.sleep(0)
            await broker.until(lambda: descriptors() == open_before)
            assert alive(Visitor, SessionRecord) == before
