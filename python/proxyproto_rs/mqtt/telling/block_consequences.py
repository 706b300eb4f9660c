"""The consequences of a changed block: a log line, an audit line, and the end of the sessions that it covers."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from ..model.paging import to_json
from ..tables.blocks.blocked import BlockEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.records import BlockedClient
    from .audit import AuditEvent
    from .recorder import Recorder

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")


class BlockConsequences(BlockEvents):
    """Listens to changes of blocks. `end_sessions` ends every connection that is no longer allowed."""

    def __init__(self, recorder: Recorder, end_sessions: Callable[[], None]) -> None:
        self._recorder = recorder  # it knows the audit file in use
        self._end_sessions = end_sessions

    def added(self, block: BlockedClient, by: str) -> None:
        """Tell of a new or changed block, and end the sessions that it covers."""
        self._tell("block.added", block, by)
        self._end_sessions()

    def removed(self, block: BlockedClient, by: str) -> None:
        """Tell of a block that was removed."""
        self._tell("block.removed", block, by)

    def expired(self, block: BlockedClient) -> None:
        """Tell of a block that has expired."""
        self._tell("block.expired", block, None)

    def _tell(self, event: AuditEvent, block: BlockedClient, by: str | None) -> None:
        what, until = event.replace(".", " "), block.expiration_time
        logger.info(
            "%s type=%s by=%s until=%d value=%s", what, block.type, by, until, json.dumps(block.value)
        )
        shown = {name: value for name, value in to_json(block).items() if name not in ("status", "revision")}
        self._recorder.audit.write(event, by=by, block=shown)
