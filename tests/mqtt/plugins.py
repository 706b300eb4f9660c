"""amqtt plugins of the tests: who may log in, who may use which topic, and what amqtt says of its sessions."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin

if TYPE_CHECKING:
    from amqtt.contexts import Action
    from amqtt.session import Session

PASSWORD = "right"


class Passwords(BaseAuthPlugin):
    """Everybody's password is `right`. For the user `boom` the plugin fails; the user `slow` gets no answer."""

    asked: list[Any]

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.asked = []

    async def authenticate(self, *, session: Session) -> bool | None:
        self.asked.append(session)
        if session.username == "boom":
            raise RuntimeError("boom")
        if session.username == "slow":
            await asyncio.get_running_loop().create_future()
        if session.username is None:
            return None
        return session.password == PASSWORD


class Topics(BaseTopicPlugin):
    """Nobody may use topics under `secret/`. Each answer takes a turn of the loop, as with a real plugin."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        await asyncio.sleep(0)
        if session is not None and session.username == "boom-topic":
            raise RuntimeError("boom")
        return (
            topic is None
            or not topic.startswith("secret/")
            or (session is not None and session.username == "chief")
        )


class Reporter(BasePlugin[Any]):
    """Writes to standard output, in a line of JSON for each login, what amqtt's own session says."""

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:
        report = {
            "client_id": client_id,
            "address": client_session.remote_address,
            "port": client_session.remote_port,
            "will_retain": client_session.will_retain,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


ALL: dict[str, dict[str, Any]] = {
    "mqtt.plugins.Passwords": {},
    "mqtt.plugins.Topics": {},
}
