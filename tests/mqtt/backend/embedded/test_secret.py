"""The secret with which the front logs clients in behind it: nobody ever sees it."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

from mqtt.http.asking import serving
from mqtt.peers import WELCOME, connack, connect, log_in, publish, subscribe

from .test_broker import EVERYBODY

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def forms(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), repr(secret)[2:-1].encode()]


def contents(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.rglob("*") if file.is_file()]


async def test_the_secret_is_nowhere_to_be_seen(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    sections: dict[str, Any] = {
        **EVERYBODY,
        "backend": {"embedded": {"sys_interval": "1s", "persistence": str(tmp_path / "kept")}},
        "auth": [{"plugin": f"{__name__}:knows"}],
        "store": f"sqlite:{tmp_path}/broker.db",
        "audit": {"file": str(tmp_path / "audit.log")},
        "log": {"level": "DEBUG"},
    }
    seen: list[bytes] = []
    async with serving(**sections) as (broker, api):
        secret = broker.service.front._broker.secret  # type: ignore[attr-defined]
        assert len(secret) >= 16
        async with log_in(broker.address(), connect("watch", clean_session=False)) as watch:
            assert watch.connack == WELCOME
            await watch.ask(subscribe("#", "$SYS/#", qos=1))
            async with log_in(broker.address(), connect("bad", username="bad")) as refused:
                assert refused.connack == connack(5)
            async with log_in(broker.address(), connect("dev")) as client:
                await client.ask(publish("a", b"last", 1, 7))
                topics: set[str] = set()
                while not {"a", "$SYS/broker/version", "$SYS/broker/uptime"} <= topics:
                    message = await watch.message()
                    topics.add(message.topic)
                    seen += [message.topic.encode(), message.payload]
                for path in ("config", "v2/client-session", "listeners", "overview", "nodes"):
                    seen.append((await api.ask("GET", f"/api/{path}")).text.encode())
                await broker.rows(1)
                seen.append((await api.ask("GET", "/api/unauthorized/client/v2")).text.encode())
    seen.append(caplog.text.encode())
    files = contents(tmp_path)
    assert len(files) >= 3
    assert any(b"dev" in file for file in files)
    for form in forms(secret):
        assert not any(form in what for what in (*seen, *files)), form


def knows(login: Any) -> bool:
    """Know every user but one, as a plugin of `auth`."""
    return bool(login.username != "bad")
