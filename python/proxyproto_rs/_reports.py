"""What a Listener reports: its statistics, the connections that it refused, and the lines in the log."""

# Without `from __future__ import annotations`: frameworks such as pydantic read the types of a dataclass's fields, and
# look for those that are text in the module that the class names.

import inspect
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ._core import Acceptor, AddressSet

__all__ = ["ListenerStats", "OnRefused", "Refusal"]

logger = logging.getLogger("proxyproto_rs.listener")

# The outcomes of connections that were served. Connections of all other outcomes were refused.
_ACCEPTED = ("v1", "v2", "local", "unknown", "direct")


@dataclass(frozen=True, eq=False, repr=False)
class ListenerStats(Mapping[str, int]):
    """An immutable mapping from every outcome to its number of connections. The attributes are sums, and other numbers.

    All outcomes are always there. A connection counts under exactly one of them, as soon as that is known.

    Typical use::

        stats = listener.stats()
        stats["missing-header"], stats.accepted, stats.open
    """

    _counts: dict[str, int]
    pending: int
    """How many connections wait for the rest of their header."""
    ready: int
    """How many connections wait to be accepted."""
    open: int
    """How many connections are served or wait to be accepted."""
    pauses: int
    """How often accepting has paused, because there were no file descriptors or no memory for more connections."""
    max_pending: int = 0
    """How many connections may be pending: the option, or less if the process may not open that many files."""
    header_times: tuple[Sequence[tuple[float, int]], int, float] = ((), 0, 0.0)
    """How long whole headers took, from accepting the connection: how many took at most so many seconds (the bound and the
    number, in rising order), how many there were, and how many seconds they took together.
    """

    @property
    def accepted(self) -> int:
        """How many connections were served."""
        return sum(self._counts[outcome] for outcome in _ACCEPTED)

    @property
    def refused(self) -> int:
        """How many connections were refused."""
        return sum(self._counts.values()) - self.accepted

    def __getitem__(self, outcome: str) -> int:
        return self._counts[outcome]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        counted = {outcome: count for outcome, count in self._counts.items() if count}
        return f"<{type(self).__name__} {counted} pending={self.pending} ready={self.ready} open={self.open}>"


@dataclass(frozen=True)
class Refusal:
    """One connection that was refused, or several from the same address for the same reason.

    Typical use::

        def on_refused(refusal):
            print(refusal.reason, refusal.peer, refusal.client, refusal.count)

        Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"], on_refused=on_refused)
    """

    reason: str
    """The outcome under which they are counted, such as ``"missing-header"``."""
    peer: Any
    """The address of the TCP peer, in the socket module's form. If `count` is above 1, the last one's."""
    client: Any
    """The client's address from the header, in the socket module's form; None if no header was read."""
    detail: str
    """What came, the first wrong byte or the rule that refused it, and what to do about it. Never empty."""
    first_bytes: bytes
    """The first bytes that the peer sent, at most 24."""
    listener: str
    """The listening address, as the log writes it."""
    count: int
    """How many connections this is about; 1 or more."""
    time: float
    """When the last of them was refused, in seconds since the epoch."""


OnRefused: TypeAlias = Callable[[Refusal], object]
"""The type of ``on_refused``: a plain function that takes a `Refusal`. Its result is ignored."""


class Refusals:
    """Passes what the acceptor has recorded to the log and to ``on_refused``."""

    __slots__ = ("_lock", "_on_refused", "dropped")

    def __init__(self, on_refused: OnRefused | None) -> None:
        self.on_refused = on_refused
        self.dropped = 0
        self._lock = threading.RLock()

    @property
    def on_refused(self) -> OnRefused | None:
        return self._on_refused

    @on_refused.setter
    def on_refused(self, callback: OnRefused | None) -> None:
        if not (callback is None or callable(callback)):
            raise TypeError(f"on_refused must be callable or None, not {type(callback).__name__}")
        call = getattr(callback, "__call__", None)  # noqa: B004 - the method of an object may be a coroutine function
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call):
            raise TypeError(
                "on_refused must be a plain function: nobody would await the coroutine of an async def. Let it put "
                "the Refusal into an asyncio.Queue"
            )
        self._on_refused = callback

    def tell(self, records: list[Any], lines: list[tuple[int, str]], dropped: int) -> None:
        """Write the lines and call the callback in the calling thread, which is one that accepts."""
        for level, line in lines:
            logger.log(level, "%s", line)
        if dropped:
            with self._lock:
                self.dropped += dropped
        if records and (on_refused := self.on_refused) is not None:
            for record in records:
                self._tell(on_refused, Refusal(*record))

    def _tell(self, on_refused: OnRefused, refusal: Refusal) -> None:
        try:
            on_refused(refusal)
        except Exception:
            # The thread is here to accept a connection. The error of the callback must not end that.
            logger.exception("on_refused failed on %r", refusal)


def log_start(acceptor: Acceptor, family: socket.AddressFamily) -> None:
    """Log where a new Listener listens, and whom it believes.

    The kernel takes connections from this moment on, whoever is going to accept them.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    options = acceptor.options()
    if options["proxy_protocol"] == "off":
        expects = "no PROXY protocol"
    else:
        versions = " or ".join(map(str, options["versions"]))
        trusted = None if family == socket.AF_UNIX else options["trusted"]
        expects = f"PROXY protocol version {versions} {options['proxy_protocol']} from {_count(trusted)}"
        if trusted is not None and options["untrusted"] == "direct":
            expects += ", other peers are clients"
    logger.info("listening on %s, %s", acceptor.name(), expects)


def _count(trusted: AddressSet | None) -> str:
    if trusted is None:
        return "every peer"
    return f"{len(trusted)} trusted {'network' if len(trusted) == 1 else 'networks'}"
