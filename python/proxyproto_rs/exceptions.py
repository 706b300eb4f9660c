"""The exceptions of proxyproto_rs, and the codes of what is wrong with a header.

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
"""Maps every code of :attr:`InvalidHeader.reason` to the outcome under which a Listener counts it."""

_TEXTS = {code: text for code, text, _ in _TABLE}


class ProxyProtocolError(ValueError):
    """The bytes that a sender sent are not a header. This is the base of the two below."""


class IncompleteHeader(ProxyProtocolError):
    """The bytes are the beginning of a header. With more bytes it may become valid (R30).

    Attributes:
        needed: The header needs at least this many more bytes; 1 or more.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed

    def __str__(self) -> str:
        noun = "byte" if self.needed == 1 else "bytes"
        return f"incomplete PROXY header: at least {self.needed} more {noun} needed"


class InvalidHeader(ProxyProtocolError):
    """The bytes are not a PROXY header, whatever may follow them.

    Typical use::

        try:
            header, length = parse(data)
        except InvalidHeader as error:
            log.warning("%s at byte %d", error.reason, error.offset)

    Attributes:
        reason: A stable code, such as ``"bad-signature"``: a key of :data:`REASONS`.
        offset: The first wrong byte, counted from the first byte of the stream or datagram.
        first_bytes: The first bytes of the stream or datagram, at most 16; ``b""`` if they are not known.
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
