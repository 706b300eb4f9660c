"""A gate without the rest of the broker, and a backend of our own behind it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from proxyproto_rs import Listener
from proxyproto_rs.mqtt import Gate, RefusedClient
from proxyproto_rs.mqtt.model.events import Silent
from proxyproto_rs.mqtt.model.reasons import Refuse

from .. import plugins
from ..peers import PINGREQ, PINGRESP, WELCOME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from proxyproto_rs.mqtt import Link
    from proxyproto_rs.mqtt.config import IdentityConfig
    from proxyproto_rs.mqtt.model.connection import Address
    from proxyproto_rs.mqtt.model.events import Action

TRUSTED = ["127.0.0.0/8"]


class Echo:
    """A backend that sends each client what it has published, and nothing else."""

    def __init__(self) -> None:
        self.denied: Callable[[str, Action, str], None] = lambda client_id, action, topic: None
        self.kept: set[str] = set()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def authenticate(self, link: Link) -> None:
        if link.connect.password != plugins.PASSWORD.encode():
            raise Refuse("bad-credentials", "Echo says no")

    async def check_will(self, link: Link) -> None:
        raise Refuse("access-denied", "Echo takes no wills")

    async def carry(self, link: Link) -> None:
        if link.username == "late":
            raise Refuse("auth-error", "Echo has changed its mind")
        link.welcome()
        link.push(WELCOME)
        self.kept.add(link.connect.client_id)
        while (packet := await link.pull()) is not None:
            if packet == PINGREQ:
                link.push(PINGRESP)
            elif packet[0] >> 4 == 3:
                link.push(packet)
            else:
                raise RuntimeError("Echo knows no other packets")

    def has_session(self, client_id: str) -> bool:
        return client_id in self.kept

    def subscriptions(self, client_id: str) -> Mapping[str, int]:
        return {}

    async def forget(self, client_id: str) -> None:
        self.kept.discard(client_id)


class Refusals(Silent):
    """Keeps the clients that were refused."""

    def __init__(self) -> None:
        self.seen: list[RefusedClient] = []

    def refused(self, refused: RefusedClient) -> None:
        self.seen.append(refused)


@contextlib.asynccontextmanager
async def serving(
    backend: Any,
    ssl: Any = None,
    websocket: bool = False,
    identity: IdentityConfig | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Gate, Address]]:
    gate = Gate(backend, **options)
    await gate.backend.start()
    listener = Listener("127.0.0.1", 0, trusted=TRUSTED)
    try:
        await gate.serve(listener, name="tcp", ssl=ssl, websocket=websocket, identity=identity)
        yield gate, listener.getsockname()
    finally:
        await gate.close()
        await gate.backend.stop()
