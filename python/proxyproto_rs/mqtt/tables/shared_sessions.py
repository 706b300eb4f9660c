"""Keeps the rows of this node's sessions in the store that the nodes share, and answers what other nodes ask.

What is written is the present state of each client id that has changed, never an event: whatever was missed while
the database was away, the next write says all that counts. So nothing waits but a bounded set of client ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..store.protocol import StoreError, StoreUnavailable
from .outage import Outage
from .wakeup import Wakeup

if TYPE_CHECKING:
    from ..model.paging import Page
    from ..model.records import BlockedClient
    from ..model.session_query import SessionQuery
    from ..model.session_record import SessionRecord
    from ..store.nodes import NodeCounts, Nodes, Owner, Request, SessionCounts, Verb, Visit
    from .sessions import Sessions

_BATCH_ROWS = 1000
_BATCH_SECONDS = 0.05
_CAPACITY = 100_000  # changed client ids; if there are more, everything is written again
_AGAIN_SECONDS = 1.0  # to the next attempt at a store that did not answer
_FLUSHED = 5 * _BATCH_ROWS  # changes that a list waits for
_BEAT_SECONDS = 2.0
_SILENT_SECONDS = 8.0
"""A node without a sign of life for so long has gone. With `_BEAT_SECONDS`, its sessions have 5 s left to be marked."""
_PURGE_SECONDS = 60.0
_ASKED_SECONDS = 1.0  # between two looks at what other nodes ask, where nothing tells of it
_ANSWER_SECONDS = 10.0
_OWNER_SECONDS = 0.25

_YES, _NO, _REFUSED = "yes", "no", "refused: "

_logger = logging.getLogger("proxyproto_rs.mqtt")


class SharedSessions:
    """Implements `sessions.Elsewhere`. `start` makes this node known; `run` writes, beats and answers until cancelled."""

    def __init__(
        self,
        nodes: Nodes,
        sessions: Sessions,
        node_id: str,
        counts: Callable[[], NodeCounts],
        *,
        outlives: bool,
    ) -> None:
        self.has_moved: Callable[[str], None] = lambda _: None
        """Is told the session id of each session whose client has come to another node."""
        self._nodes = nodes
        self._sessions = sessions
        self._node_id = node_id
        self._counts = counts
        self._outlives = outlives
        self._changed: OrderedDict[str, None] = OrderedDict()
        self._is_overfull = False
        self._wake = Wakeup()
        self._full = Wakeup()
        self._asked = Wakeup()
        self._writing = asyncio.Lock()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._working: dict[int, asyncio.Task[None]] = {}
        self._beating_since: float | None = None
        self._knows_owners = True
        self._owners_unknown = Outage(
            _logger,
            "clients are let in without asking whether other nodes have their ids for another user",
            "it is asked again whether other nodes have a client's id for another user",
        )
        self._outage = Outage(
            _logger, "sessions are not shared with other nodes", "sessions are shared with other nodes again"
        )

    async def start(self) -> None:
        """Make this node known. Raises StoreError."""
        await self._nodes.enter(self._node_id, outlives=self._outlives)
        await self._nodes.settle(None)

    async def run(self) -> None:
        """Keep the store in step until cancelled."""
        self._nodes.when_asked(self._asked.set)
        await asyncio.gather(self._write_changes(), self._beat(), self._settle(), self._answer_requests())

    async def stop(self) -> None:
        """Write what is left, and end this node's life. `run` must have ended, and so must the sessions."""
        for task in self._working.values():
            task.cancel()
        await asyncio.gather(*self._working.values(), return_exceptions=True)
        await self.flush()
        with contextlib.suppress(StoreError):  # the others see that there is no sign of life
            await self._nodes.leave()

    # `Sessions` calls these.

    def changed(self, client_id: str) -> None:
        """Write the state of a client id soon."""
        if len(self._changed) < _CAPACITY:
            self._changed[client_id] = None
        else:
            self._is_overfull = True
        self._wake.set()
        if len(self._changed) >= _BATCH_ROWS:
            self._full.set()

    async def find(self, query: SessionQuery) -> Page[SessionRecord]:
        """Find a page of the sessions of all nodes. Raises StoreError."""
        if len(self._changed) <= _FLUSHED:
            await self.flush()
        return await self._nodes.find(query)

    async def get(self, client_id: str) -> SessionRecord | None:
        """Return the session of a client id. Raises StoreError."""
        if client_id in self._changed:
            await self.flush()
        return await self._nodes.get(client_id)

    async def count_elsewhere(self) -> SessionCounts:
        """Count the sessions that this node does not have. Raises StoreError."""
        return await self._nodes.count_elsewhere()

    async def visit_connected(self, block: BlockedClient, visit: Visit) -> None:
        """Visit the connected clients of all nodes that the block may cover. Raises StoreError."""
        if len(self._changed) <= _FLUSHED:
            await self.flush()
        await self._nodes.visit_connected(block, visit)

    async def owner_elsewhere(self, client_id: str) -> Owner | None:
        """Return the owner of a session that this node does not have; None if there is none, or if it is not known.

        A login waits for this. So it waits for a quarter of a second at most, and not at all before a store that has
        not answered gets a sign of life of this node again.
        """
        if not self._knows_owners:
            return None
        try:
            return await asyncio.wait_for(self._nodes.owner_elsewhere(client_id), _OWNER_SECONDS)
        except asyncio.TimeoutError:
            wrong: StoreError = StoreUnavailable(f"the store has not answered in {_OWNER_SECONDS:g} s")
        except StoreError as raised:
            wrong = raised
        self._knows_owners = False
        self._owners_unknown.goes_on(wrong)
        return None

    async def ask(self, verb: Verb, client_id: str, session_id: str | None, by: str) -> bool:
        """Let the node that has the session do it. Return whether it has done it.

        Raises:
            ValueError: That node refuses.
            StoreUnavailable: It does not answer, or the store does not.
            StoreError: The store fails.
        """
        number = await self._nodes.ask(verb, client_id, session_id, by)
        if number is None:
            return False
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._asked.set()  # the answer may have come before anybody waited for it
        try:
            answer = await asyncio.wait_for(future, _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise StoreUnavailable(
                f"the node of client {client_id!r} has not answered in {_ANSWER_SECONDS:g} s"
            ) from None
        finally:
            del self._answers[number]
        if answer.startswith(_REFUSED):
            raise ValueError(answer.removeprefix(_REFUSED))
        return answer == _YES

    async def moved(self, ended: Sequence[SessionRecord]) -> frozenset[str]:
        """Return the session ids of those ended sessions whose clients have come to another node, as far as is known."""
        try:
            client_ids = await self._nodes.moved([session.client_id for session in ended])
        except StoreError:
            return frozenset()
        return frozenset(session.session_id for session in ended if session.client_id in client_ids)

    # what is written

    async def flush(self) -> None:
        """Write all changes, as far as the store answers. It does not raise."""
        async with self._writing:
            try:
                if self._is_overfull:
                    await self._write_everything()
                while self._changed:
                    await self._write_batch()
            except StoreUnavailable as wrong:
                self._outage.goes_on(wrong)
                return
            except StoreError as wrong:
                _logger.error("sessions are not shared with other nodes: %s", wrong)
                return
            self._outage.is_over()

    async def _write_batch(self) -> None:
        ids = list(islice(self._changed, _BATCH_ROWS))
        for client_id in ids:
            del self._changed[client_id]
        records = {client_id: self._sessions.record(client_id) for client_id in ids}
        present = [record for record in records.values() if record is not None]
        ended = [client_id for client_id, record in records.items() if record is None]
        try:
            moved = await self._nodes.write(present, ended)
        except StoreUnavailable:
            self._changed.update(dict.fromkeys(ids))
            raise
        for client_id in moved:
            record = records.get(client_id)
            if record is not None:
                self._take_over(client_id, record.session_id)

    async def _write_everything(self) -> None:
        """Write as a new node, so that rows of sessions that ended unnoticed are those of a node that has gone."""
        await self._nodes.enter(self._node_id, outlives=self._outlives)
        self._is_overfull = False
        self._changed = OrderedDict.fromkeys(record.client_id for record in self._sessions.records())

    def _take_over(self, client_id: str, session_id: str | None) -> None:
        """End or forget a session whose client has come to another node."""
        if session_id is None:
            return
        self.has_moved(session_id)
        self._sessions.take_over(client_id, session_id)

    async def _write_changes(self) -> None:
        while True:
            if await self._wake.wait(_PURGE_SECONDS):
                await self._full.wait(_BATCH_SECONDS)
                self._wake.clear()
                self._full.clear()
                await self.flush()
                if self._changed or self._is_overfull:
                    self._wake.set()
                    await asyncio.sleep(_AGAIN_SECONDS)

    # who lives

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                if not await self._nodes.beat(self._counts()):
                    self._is_overfull = True
                    self._wake.set()
                self._knows_owners = True
                self._owners_unknown.is_over()
                if self._beating_since is None:
                    self._beating_since = loop.time()
            except StoreError as wrong:
                # Nobody could beat. So nobody is missed before everybody has had the time to.
                self._beating_since = None
                if isinstance(wrong, StoreUnavailable):
                    self._outage.goes_on(wrong)
            await asyncio.sleep(_BEAT_SECONDS)

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        while True:
            since = self._beating_since
            if since is not None:
                # Whoever cannot judge the others still sees who has left.
                silent = _SILENT_SECONDS if loop.time() - since > _SILENT_SECONDS else None
                with contextlib.suppress(StoreUnavailable):
                    await self._quietly(silent, purge=loop.time() >= purge_at)
                if loop.time() >= purge_at:
                    purge_at = loop.time() + _PURGE_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)

    async def _quietly(self, silent: float | None, *, purge: bool) -> None:
        try:
            if closed := await self._nodes.settle(silent):
                _logger.warning("sessions of nodes that have gone are closed count=%d", closed)
            if purge:
                await self._nodes.purge(int(self._sessions.clock() * 1000))
        except StoreUnavailable:
            raise
        except StoreError as wrong:
            _logger.error("sessions of nodes that have gone are not closed: %s", wrong)

    # what others ask

    async def _answer_requests(self) -> None:
        while True:
            await self._asked.wait(_ASKED_SECONDS)
            self._asked.clear()
            with contextlib.suppress(StoreError):
                await self._look()

    async def _look(self) -> None:
        taken: list[tuple[int, str]] = []
        for request in await self._nodes.asked():
            if request.verb == "taken-over":
                self._take_over(request.client_id, request.session_id)
                taken.append((request.number, _YES))
            elif request.number not in self._working:
                self._working[request.number] = asyncio.create_task(self._do(request))
        if taken:
            await self._nodes.answer(taken)
        for number, future in list(self._answers.items()):
            answer = await self._nodes.answer_of(number)
            if answer is not None and not future.done():
                future.set_result(answer)

    async def _do(self, request: Request) -> None:
        try:
            answer = await self._done(request)
            with contextlib.suppress(StoreError):  # it is asked again, and is then no longer there
                await self._nodes.answer([(request.number, answer)])
        finally:
            del self._working[request.number]

    async def _done(self, request: Request) -> str:
        try:
            if request.verb == "disconnect":
                done = await self._sessions.disconnect_here(
                    request.client_id, request.session_id, by=request.by
                )
                await self.flush()
            else:
                done = await self._sessions.remove_here(request.client_id, by=request.by)
                await self.flush()
        except ValueError as wrong:
            return f"{_REFUSED}{wrong}"
        return _YES if done else _NO
