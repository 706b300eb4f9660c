"""Tells a session that a server has closed from one whose client has come to another node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model.events import Action, Observer, RefusedClient
    from ..model.session_record import SessionRecord

_PATIENCE = 0.5
"""Seconds in which the other node has written that the client is there. That takes it 50 ms."""

Look = Callable[[Sequence["SessionRecord"]], Awaitable[Container[str]]]
"""Returns the session ids of those sessions whose clients have come to another node. It does not raise."""


class Moves:
    """Implements `events.Observer`, and passes everything on.

    A server closes a session when its client id logs in again. That this was on another node is known a little
    later. Until then, the end is kept back.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._looks: list[Look] = []
        self._ended: dict[str, tuple[float, SessionRecord]] = {}
        """The time and the session of each end that is kept back, by session id, oldest first."""
        self._task: asyncio.Task[None] | None = None

    def expect(self, look: Look) -> None:
        """Ask `look` too for each session that a server closes from now on."""
        self._looks.append(look)

    def moved(self, session_id: str) -> None:
        """Take over that the client of a session has come to another node."""
        ended = self._ended.pop(session_id, None)
        if ended is not None:
            self._tell(ended[1], moved=True)

    async def close(self) -> None:
        """Tell of all ends that are kept back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, session in self._ended.values():
            self._tell(session, moved=False)
        self._ended.clear()

    def refused(self, refused: RefusedClient) -> None:
        """Pass it on."""
        self._observer.refused(refused)

    def connected(self, session: SessionRecord) -> None:
        """Pass it on."""
        self._observer.connected(session)

    def disconnected(self, session: SessionRecord) -> None:
        """Pass it on, now or when it is known why."""
        if not self._looks or session.disconnect_reason != "upstream-closed":
            self._observer.disconnected(session)
            return
        self._ended[session.session_id] = (time.monotonic(), session)
        if self._task is None:
            self._task = asyncio.create_task(self._tell_late(), name="proxyproto-rs moves")

    def denied(self, session: SessionRecord, action: Action, topic: str, times: int = 1) -> None:
        """Pass it on."""
        self._observer.denied(session, action, topic, times)

    def asked(self, seconds: float) -> None:
        """Pass it on."""
        self._observer.asked(seconds)

    async def _tell_late(self) -> None:
        while self._ended:
            oldest = next(iter(self._ended.values()))[0]
            await asyncio.sleep(oldest + _PATIENCE - time.monotonic())
            before = time.monotonic() - _PATIENCE
            sessions = [session for ended_at, session in self._ended.values() if ended_at <= before]
            moved = [await look(sessions) for look in self._looks]
            for session in sessions:
                if self._ended.pop(session.session_id, None) is not None:
                    self._tell(session, moved=any(session.session_id in found for found in moved))
        self._task = None

    def _tell(self, session: SessionRecord, *, moved: bool) -> None:
        if moved:
            session.disconnect_reason, session.detail = "taken-over", ""
        self._observer.disconnected(session)
