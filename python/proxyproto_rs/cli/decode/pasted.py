"""What people paste, back into bytes: hex in all its shapes, dumps of tools, escapes of languages, base64.

Each form is tried in a fixed order, and the first that takes the whole text wins. Every regular expression here is linear.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_SIGNATURE = b"PROXY"

_SEEN_ENOUGH = 5  # bytes of the binary signature, up to its NUL: no other protocol starts so


class NotThisForm(ValueError):
    """The text is not of the form that was asked for."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """The bytes, and how they were written."""

    form: str
    """A key of `FORMS`."""
    pieces: tuple[bytes, ...]
    """One piece, or the packets of a dump that shows several."""


def read(pasted: bytes, form: str | None = None) -> Pasted:
    """Turn what was pasted into bytes. Without `form` guess it; what fits no form is raw bytes.

    Raises:
        NotThisForm: It is not of this `form`.
    """
    if form is not None:
        return Pasted(form, FORMS[form].read(pasted))
    if not _is_plainly_raw(pasted):
        for name, candidate in FORMS.items():
            try:
                pieces = candidate.read(pasted)
            except NotThisForm:
                continue
            if not candidate.is_vague or starts_a_header(pieces[0]):
                return Pasted(name, pieces)
    return Pasted("raw", (pasted,))


def starts_a_header(data: bytes | bytearray) -> bool:
    """Whether a header of either version begins here, perhaps a broken one."""
    return data.startswith((V1_SIGNATURE, SIGNATURE[:_SEEN_ENOUGH]))


def _is_plainly_raw(pasted: bytes) -> bool:
    r"""Whether a header begins here, and not text such as ``PROXY ...\\r\\n`` that writes its line end as an escape."""
    return starts_a_header(pasted) and (b"\\" not in pasted or b"\r" in pasted)


def _text(pasted: bytes) -> str:
    try:
        return pasted.decode()
    except UnicodeDecodeError:
        raise NotThisForm("it is not text") from None


def _hex(pasted: bytes) -> tuple[bytes, ...]:
    """Read hex digits with or without separators: ``0d0a``, ``0d 0a``, ``0D:0A``, ``0x0d, 0x0a``, ``{0x0d, 0x0a}``."""
    text = _COMMENT.sub("", _text(pasted))
    if "{" in text:  # an array of C, behind its name and type
        text = text.partition("{")[2].rpartition("}")[0]
    text = _HEX_NOISE.sub("", text)
    text = _HEX_PREFIX.sub("", text)
    if not text or len(text) % 2 or _NOT_HEX.search(text):
        raise NotThisForm("it is not an even number of hex digits")
    return (bytes.fromhex(text),)


_COMMENT: re.Pattern[str] = re.compile(r"/\*[^*]*\*/")
_HEX_NOISE: re.Pattern[str] = re.compile(r"[\s,;:{}\[\]()'\"-]")
_HEX_PREFIX: re.Pattern[str] = re.compile(r"0[xX]")
_NOT_HEX: re.Pattern[str] = re.compile(r"[^0-9a-fA-F]")


def _dump(pasted: bytes) -> tuple[bytes, ...]:
    """Read lines of an offset, hex and text: xxd, hexdump -C, od -A x -t x1, tcpdump -X, Wireshark's hex dump.

    An offset of 0 starts the next packet. Other lines, such as tcpdump's line for each packet, are passed over.
    """
    packets: list[bytearray] = []
    repeated = 0
    repeat = False
    for line in _text(pasted).splitlines():
        found = _DUMP_LINE.match(line)
        if found is None:
            repeat = line.strip() == "*"
            continue
        offset = int(found["offset"], 16)
        row = _row(found["rest"], is_swapped=not found["colon"])
        if offset == 0 and row:
            packets.append(bytearray(row))
        elif packets and repeat and offset > len(packets[-1]):
            repeated += offset - len(packets[-1])
            if repeated > LARGEST_DUMP:
                raise NotThisForm(f"its lines * stand for more than {LARGEST_DUMP} bytes")
            _repeat(packets[-1], offset)
            packets[-1] += row
        elif packets and offset == len(packets[-1]):
            packets[-1] += row
        elif packets and not row and offset == len(packets[-1]) - 1:
            packets[-1].pop()  # hexdump without -C fills up its last word
        elif row:
            raise NotThisForm(f"the offset {found['offset']} does not follow what stands before it")
        repeat = False
    if not packets:
        raise NotThisForm("it has no line with the offset 0 and hex behind it")
    return tuple(map(bytes, packets))


# xxd and tcpdump have a colon. At least two spaces, or the bar of hexdump -C, end the hex.
_DUMP_LINE: re.Pattern[str] = re.compile(
    r"\s*(?:0x)?(?P<offset>[0-9a-fA-F]{4,16})(?:(?P<colon>:)|(?=\s|$))(?P<rest>.*)$"
)
_LONGEST_ROW = 64
LARGEST_DUMP = 1 << 20
"""How many bytes the lines ``*`` of hexdump may stand for. The longest header has 65551."""


def _row(rest: str, *, is_swapped: bool) -> bytes:
    """Read the hex of one line. It ends at the column of text, which may look like hex too.

    Words of four digits without a colon before them are those of hexdump without -C, on a little-endian machine.
    """
    row = bytearray()
    rest = rest.rstrip()
    at = 0
    width = 0
    while len(row) < _LONGEST_ROW and (found := _GROUP.match(rest, at)):
        gap, digits = found["gap"], found["digits"]
        # The gap in the middle of hexdump -C and Wireshark is two spaces too, and stands behind eight bytes.
        if (
            row
            and len(gap) > 1
            and not (len(gap) == _MIDDLE_GAP and len(row) == _MIDDLE and width == _ONE_BYTE)
        ):
            break
        if width and len(digits) > width:
            break
        width = width or len(digits)
        value = bytes.fromhex(digits)
        row += value[::-1] if is_swapped and width == _TWO_BYTES else value
        at = found.end()
    return bytes(row)


_GROUP: re.Pattern[str] = re.compile(r"(?P<gap>\s+)(?P<digits>(?:[0-9a-fA-F]{2}){1,16})(?=\s|$)")
_MIDDLE, _MIDDLE_GAP = 8, 2
_ONE_BYTE, _TWO_BYTES = 2, 4


def _repeat(packet: bytearray, until: int) -> None:
    """Add what hexdump shows as ``*``: its last line again, up to an offset."""
    row = bytes(packet[-16:])
    missing = until - len(packet)
    packet += (row * (missing // len(row) + 1))[:missing]


def _escapes(pasted: bytes) -> tuple[bytes, ...]:
    r"""Read the escapes of C, Python, Rust, Go and JSON: ``\r\n\x00QUIT``, with or without quotes."""
    text = _text(pasted).strip()
    quoted = _LITERALS.fullmatch(text)
    if quoted:
        text = "".join(single or double or "" for single, double in _LITERAL.findall(text))
    if not quoted and not _SURE_ESCAPE.search(text):
        raise NotThisForm("it has no escape and no quotes")
    data = bytearray()
    at = 0
    for found in _ESCAPE.finditer(text):
        data += text[at : found.start()].encode()
        data += _escaped(found)
        at = found.end()
    data += text[at:].encode()
    return (bytes(data),)


# b'...' and "...", several in a row as C joins them.
_LITERALS: re.Pattern[str] = re.compile(
    r"""(?:[bB]?[rR]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[\s+;,\\]*)+""", re.DOTALL
)
_LITERAL: re.Pattern[str] = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPE: re.Pattern[str] = re.compile(
    r"\\(?:x(?P<hex>[0-9a-fA-F]{2})|u\{?(?P<unicode>00[0-9a-fA-F]{2})\}?|(?P<octal>[0-7]{1,3})|(?P<letter>.))",
    re.DOTALL,
)
_SURE_ESCAPE: re.Pattern[str] = re.compile(r"\\(?:[rn0]|[0-3][0-7]{2}|x[0-9a-fA-F]{2}|u00[0-9a-fA-F]{2})")
_LETTERS = {
    "r": b"\r",
    "n": b"\n",
    "t": b"\t",
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "v": b"\v",
    "e": b"\x1b",
    "\n": b"",
}


def _escaped(found: re.Match[str]) -> bytes:
    if digits := found["hex"] or found["unicode"]:
        return bytes([int(digits, 16)])
    if found["octal"]:
        return bytes([int(found["octal"], 8) & 0xFF])
    letter = found["letter"]
    return _LETTERS.get(letter, letter.encode(errors="replace"))


def _base64(pasted: bytes) -> tuple[bytes, ...]:
    """Read base64 of either alphabet, with or without its padding and line ends."""
    text = "".join(_text(pasted).split()).translate(_FROM_URL_SAFE).rstrip("=")
    try:
        return (base64.b64decode(text + "=" * (-len(text) % 4), validate=True),)
    except (binascii.Error, ValueError):
        raise NotThisForm("it is not base64") from None


_FROM_URL_SAFE = str.maketrans("-_", "+/")


def _in_a_sentence(pasted: bytes) -> tuple[bytes, ...]:
    """Find hex in a line of text, such as our own log lines: ``... the first bytes are 50 52 4f 58 59``."""
    found = max(_RUN_OF_HEX.findall(_text(pasted)), key=len, default="")
    if not found:
        raise NotThisForm("it has no run of hex")
    return (bytes.fromhex(found),)


_RUN_OF_HEX: re.Pattern[str] = re.compile(r"(?<!\S)[0-9a-fA-F]{2}(?: [0-9a-fA-F]{2}){3,}(?![^\s.,;:)])")


def _raw(pasted: bytes) -> tuple[bytes, ...]:
    return (pasted,)


@dataclass(frozen=True, slots=True)
class Form:
    """How one form is read."""

    words: str
    """With an article, for people."""
    read: Callable[[bytes], tuple[bytes, ...]]
    is_vague: bool
    """Whether other text could look like it. Then it is taken only if a header begins in it."""


FORMS: dict[str, Form] = {
    "dump": Form("a hex dump", _dump, is_vague=False),
    "hex": Form("hex digits", _hex, is_vague=False),
    "escapes": Form("escapes of a programming language", _escapes, is_vague=False),
    "base64": Form("base64", _base64, is_vague=True),
    "sentence": Form("hex in a line of text", _in_a_sentence, is_vague=False),
    "raw": Form("raw bytes", _raw, is_vague=False),
}
