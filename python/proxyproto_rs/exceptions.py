"""The exceptions of proxyproto_rs, and the codes of what can be wrong with a header.

* :exc:`ProxyProtocolError` (a :exc:`ValueError`)
    * :exc:`IncompleteHeader`
    * :exc:`InvalidHeader`
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ._core import _looks_like, _reasons

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REASONS", "IncompleteHeader", "InvalidHeader", "ProxyProtocolError"]

_TABLE = _reasons()

REASONS: Mapping[str, str] = MappingProxyType({code: outcome for code, _, outcome in _TABLE})
"""Every code that :attr:`InvalidHeader.reason` can have, and the outcome a Listener counts it under."""

_TEXTS = {code: text for code, text, _ in _TABLE}


class ProxyProtocolError(ValueError):
    """Base of all that is raised because of the bytes a sender sent."""


class IncompleteHeader(ProxyProtocolError):
    """The bytes so far are the beginning of a header, which may still become valid (R30).

    Attributes:
        needed: At least so many bytes more are wanted before the header can be complete; 1 or more.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed

    def __str__(self) -> str:
        noun = "byte" if self.needed == 1 else "bytes"
        return f"incomplete PROXY header: at least {self.needed} more {noun} needed"


class InvalidHeader(ProxyProtocolError):
    """The bytes are not a PROXY header, and no continuation can make them one.

    Attributes:
        reason: A stable code, such as ``"bad-signature"``; one of :data:`REASONS`.
        offset: The byte where it went wrong, counted from the first byte of the stream or datagram.
        first_bytes: The first bytes that came instead, at most 16; ``b""`` where they are not known.
    """

    def __init__(self, reason: str, offset: int, first_bytes: bytes = b"") -> None:
        super().__init__(reason, offset, first_bytes)
        self.reason = reason
        self.offset = offset
        self.first_bytes = first_bytes

    def __str__(self) -> str:
        text = f"invalid PROXY header at byte {self.offset}: {_TEXTS.get(self.reason, self.reason)}"
        if not self.first_bytes:
            return text
        text += f" (it starts with {self.first_bytes.hex(' ')}"
        if REASONS.get(self.reason) == "missing-header":
            text += f", which looks like {_looks_like(self.first_bytes)}"
        return text + ")"
