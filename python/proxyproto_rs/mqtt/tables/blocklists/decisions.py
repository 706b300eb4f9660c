"""CrowdSec's decisions: how they are written, and the networks that they keep out.

The API tells of each decision by its id. One address can have several decisions; it is kept out until the last of them
ends. Deletions repeat, and name decisions that were never told of.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from proxyproto_rs import AddressSet

from .networks import MOST_NETWORKS, Ignored, Protected, UnusableList, one_spelling, with_pauses

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_USUAL = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?([0-9]+(?:\.[0-9]+)?)s")
"""As the API writes nearly all of them."""
_LONGEST_DURATION = 64  # characters
_LONGEST_KEY = 64
_LOOKED_AT_ONCE = 2048  # decisions that are looked at and stay as they are, about 1 ms of work


Decision = tuple[str, str, float]
"""The key, the network that is kept out, and for how many seconds.

A plain tuple of plain values: the garbage collector does not follow it, and a full collection over 70,000 others would
stop the event loop.
"""


class Pulled(NamedTuple):
    """An answer of the API."""

    new: deque[Decision]
    deleted: list[str]
    ignored: Ignored


class Decisions:
    """The networks of the decisions in force.

    It works in a thread. No step of it takes long in C, where the interpreter cannot turn to the event loop.
    """

    def __init__(self) -> None:
        self.addresses: AddressSet = AddressSet()
        self._network_of: dict[str, str] = {}
        self._deadlines: dict[str, dict[str, float]] = {}  # network -> decision -> when it ends
        self._new = self._gone = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def take(self, pulled: Pulled, now: float, *, everything: bool) -> tuple[int, int]:
        """Put decisions in force and end others. Return how many networks are new, and how many gone.

        With `everything`, decisions end that are not among the new ones. `now` is in seconds, of any clock that does not
        jump. It uses `pulled` up, and takes a second for 70,000, so call it in a thread.
        """
        self._new = self._gone = 0
        gone: Iterable[str] = pulled.deleted
        if everything:
            told = {key for key, _, _ in with_pauses(pulled.new, _LOOKED_AT_ONCE)}
            known = with_pauses(list(self._network_of), _LOOKED_AT_ONCE)
            gone = [key for key in known if key not in told]
        for _ in with_pauses(range(len(pulled.new))):
            self._put(pulled.new.popleft(), now)
        for key in with_pauses(gone):
            self._end(key, now)
        self.expire(now)
        return self._new, self._gone

    def expire(self, now: float) -> None:
        """Forget the decisions that have ended. The acceptors have let their addresses in at the moment of the end."""
        for network in with_pauses(list(self._deadlines), _LOOKED_AT_ONCE):
            deadlines = self._deadlines[network]
            for key in [key for key, end in deadlines.items() if end <= now]:
                self._end(key, now)

    def _put(self, decision: Decision, now: float) -> None:
        key, network, seconds = decision
        if self._network_of.get(key, network) != network:
            self._end(key, now)
        self._network_of[key] = network
        deadlines = self._deadlines.get(network)
        if deadlines is None:
            deadlines = self._deadlines[network] = {}
            self._new += 1
        deadlines[key] = now + seconds
        self._show(network, now)

    def _end(self, key: str, now: float) -> None:
        network = self._network_of.pop(key, None)
        if network is not None:
            del self._deadlines[network][key]
            self._show(network, now)

    def _show(self, network: str, now: float) -> None:
        deadlines = self._deadlines[network]
        left = max(deadlines.values()) - now if deadlines else 0.0
        if left > 0:
            self.addresses.add(network, expires=left)
        else:
            self.addresses.discard(network)
        if not deadlines:
            del self._deadlines[network]
            self._gone += 1


def parse(data: bytearray | bytes, scopes: Collection[str], protected: Protected) -> Pulled:
    """Read an answer of /v1/decisions/stream. Raises UnusableList if it is none, and then of the whole of it."""
    pulled = Pulled(deque(), [], Ignored())
    wanted = {scope.casefold() for scope in scopes}
    try:
        for kind, value in with_pauses(_items(data.decode("utf-8"))):
            if kind == "new":
                _add(pulled, value, wanted, protected)
            elif kind == "deleted" and isinstance(value, dict):
                pulled.deleted.append(_key(value))
            if len(pulled.new) > MOST_NETWORKS or len(pulled.deleted) > MOST_NETWORKS:
                raise UnusableList(f"has more than {MOST_NETWORKS} decisions")
    except (ValueError, RecursionError) as wrong:
        raise UnusableList(f"is no answer of CrowdSec: {str(wrong)[:200]}") from None
    return pulled


def parse_go_duration(text: object) -> float:
    """Parse a duration as Go writes it, such as `3h59m58.123s` and `-5m`, into seconds. Raises ValueError."""
    if not isinstance(text, str) or len(text) > _LONGEST_DURATION:
        raise ValueError("is no duration")
    if usual := _USUAL.fullmatch(text):
        return float(usual[1] or 0) * 3600 + float(usual[2] or 0) * 60 + float(usual[3])
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0.0
    seconds, position = 0.0, 0
    while found := _PART.match(unsigned, position):
        seconds += float(found[1]) * _UNITS[found[2]]
        position = found.end()
    if position == 0 or position != len(unsigned):
        raise ValueError(f"{text!r} is no duration")
    return -seconds if text[0] == "-" else seconds


def _add(pulled: Pulled, value: Any, wanted: set[str], protected: Protected) -> None:
    if not isinstance(value, dict):
        pulled.ignored.add("no decision", value)
        return
    kind, scope, named = (str(value.get(name, "")) for name in ("type", "scope", "value"))
    if kind.casefold() != "ban":
        pulled.ignored.add(f"type {kind[:32]!r}", named)
        return
    if scope.casefold() not in wanted:
        pulled.ignored.add(f"scope {scope[:32]!r}", named)
        return
    if value.get("simulated") is True:
        pulled.ignored.add("simulated", named)
        return
    try:
        network, seconds = one_spelling(named), parse_go_duration(value.get("duration"))
        key = _key(value)
    except ValueError as wrong:
        pulled.ignored.add("no address or no duration", f"{named}: {wrong}")
        return
    if protected.covers(network):
        pulled.ignored.add("a trusted proxy or loopback would be kept out", named)
    elif seconds > 0:
        pulled.new.append((key, network, seconds))
    else:
        pulled.deleted.append(key)


def _key(value: dict[str, Any]) -> str:
    number = value.get("id")
    if isinstance(number, bool) or not isinstance(number, (int, str)) or len(str(number)) > _LONGEST_KEY:
        raise ValueError("has a decision without an id")
    return str(number)


def _items(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the items of each list of the object `text`, with the list's name. null is an empty list.

    `json.loads` holds the interpreter for as long as it works, also in a thread: the event loop stood still for all of the
    0.5 s that 70,000 decisions took on a busy machine (benches/mqtt_blocklists.py). So here it reads one item at a time.
    """
    decode = json.JSONDecoder().raw_decode
    position = _after(text, 0, "{")
    if text[position : position + 1] == "}":
        _refuse_more(text, position + 1)
        return
    while True:
        name, position = decode(text, position)
        position = _after(text, _blank(text, position), ":")
        if text[position : position + 1] != "[":
            value, position = decode(text, position)
            if name in ("new", "deleted") and value is not None:
                raise ValueError(f"{name} is no list")
        elif text[(position := _blank(text, position + 1)) : position + 1] == "]":
            position += 1
        else:
            while True:
                value, position = decode(text, position)
                yield name, value
                position = _blank(text, position)
                if text[position : position + 1] == "]":
                    position += 1
                    break
                position = _after(text, position, ",")
        position = _blank(text, position)
        if text[position : position + 1] == "}":
            _refuse_more(text, position + 1)
            return
        position = _after(text, position, ",")


def _refuse_more(text: str, position: int) -> None:
    if _blank(text, position) != len(text):
        raise ValueError(f"goes on behind its end, at character {position}")


def _after(text: str, position: int, sign: str) -> int:
    position = _blank(text, position)
    if text[position : position + 1] != sign:
        raise ValueError(f"has no {sign!r} at character {position}")
    return _blank(text, position + 1)


def _blank(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return position if found is None else found.end()


_BLANKS = re.compile(r"[ \t\r\n]*")
