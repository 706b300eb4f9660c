"""Tells what the embedded broker has denied, with the record of the client's session, and what it could not write down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ..backend.embedded.broker import EmbeddedBroker
    from ..model.events import Observer
    from ..model.session_record import SessionRecord
    from ..tables.sessions import Sessions

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")

_EVERY = 0.5  # seconds between two looks
_REMEMBERED = (
    5.0  # seconds for which a client that has gone is still known: its last packets may still be judged
)
_MOST_REMEMBERED = 10_000

_Whose: TypeAlias = "tuple[str, Any]"  # client id and address, which is not the next one's


class Denials:
    """Looks twice a second at what was denied, or could not be kept."""

    def __init__(self, broker: EmbeddedBroker, sessions: Sessions, observer: Observer) -> None:
        self._broker = broker
        self._sessions = sessions
        self._observer = observer
        self._left: OrderedDict[_Whose, tuple[float, SessionRecord]] = OrderedDict()

    def left(self, record: SessionRecord) -> None:
        """Remember a client that has just gone."""
        now = time.monotonic()
        whose = (record.client_id, record.connection.client)
        self._left[whose] = (now, record)
        self._left.move_to_end(whose)
        while self._left:
            since, _ = next(iter(self._left.values()))
            if len(self._left) <= _MOST_REMEMBERED and now - since < _REMEMBERED:
                break
            self._left.popitem(last=False)

    async def run(self) -> None:
        """Tell of denials until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            self.tell()

    def tell(self) -> None:
        """Tell of what was denied, or could not be kept, since the last call."""
        denied, more = self._broker.take_denials()
        for client_id, client, action, topic, times in denied:
            record = self._sessions.record(client_id)
            # Another may have come with this client id since.
            if record is None or record.connection.client != client:
                record = self._left.get((client_id, client), (0.0, record))[1]
            if record is not None:
                self._observer.denied(record, action, topic, times)
        if more:
            logger.warning("denied-uncounted times=%d detail=too many different topics were denied", more)
        if (unwritten := self._broker.take_unwritten()) is not None:
            logger.error("unwritten times=%d detail=persistence takes nothing: %s", *unwritten)
