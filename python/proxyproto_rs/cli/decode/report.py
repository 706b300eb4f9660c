"""What `proxyproto-rs decode` prints of a header: the client, each field, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxyproto_rs import IncompleteHeader, InvalidHeader

from ..colours import Colours, shown, without_marks
from ..header_faults import HEADER_FAULTS, outcome_of, text_of
from ..rules import RULES
from .fields import DEFAULT_LONGEST, Explained, Field, explain, looks_like
from .pasted import V1_SIGNATURE, starts_a_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxyproto_rs import Header

MOST_HEADERS = 8
"""How many headers that follow each other are explained."""

_MOST_ROWS = 400
_HEX_BYTES = 8


def report(data: bytes, colours: Colours) -> tuple[list[str], bool]:
    """Explain the headers at the start of a stream; return the lines, and whether all is well."""
    lines: list[str] = []
    rest = data
    for number in range(1, MOST_HEADERS + 1):
        explained = explain(rest)
        lines += of_header(explained, colours, at=len(data) - len(rest))
        if explained.header is None:
            return lines, False
        rest = rest[explained.length :]
        if not starts_a_header(rest):
            break
        lines.append("")
        lines.append(
            f"Header {number + 1} follows: each of two proxies sent one. A Listener takes the first, and gives the other "
            "to the application."
        )
    if rest:
        lines.append(f"behind it: {len(rest)} bytes, which look like {looks_like(rest)}: {shown(rest, 32)}")
    return lines, True


def of_header(explained: Explained, colours: Colours, at: int = 0) -> list[str]:
    """Return the lines about one header, which starts at byte `at` of what was pasted."""
    lines = [colours.bold(_title(explained))]
    if explained.header is not None:
        lines += [f"  {line}" for line in _who(explained.header)]
    if explained.fields:
        wrong_at = explained.fault.offset if isinstance(explained.fault, InvalidHeader) else None
        lines += ["", *_table(explained, wrong_at, colours, at)]
    if explained.fault is not None:
        lines += ["", *_fault(explained, explained.fault, colours, at)]
    lines += [colours.doubtful(f"note: {note}") for note in explained.notes]
    return lines


def _title(explained: Explained) -> str:
    header = explained.header
    if header is not None:
        kind = f"{header.command.name} {header.family.name}/{header.transport.name}"
        return f"A valid header of version {header.version}, {kind}, {explained.length} bytes"
    if not explained.data:
        return "Nothing: not one byte"
    if isinstance(explained.fault, IncompleteHeader):
        return "The beginning of a header"
    if starts_a_header(explained.data):
        return "A header that is not valid"
    return f"No header: these bytes look like {looks_like(explained.data)}"


def _who(header: Header) -> Iterator[str]:
    for name, address in (("client", header.source), ("connected to", header.destination)):
        if address is not None:
            yield f"{name:<13}{written(address)}"
    if header.ssl is not None and header.ssl.client_tls:
        cn = f", certificate of {shown(header.ssl.cn.encode())}" if header.ssl.cn else ""
        verified = ", verified" if header.ssl.verified else ""
        yield f"{'TLS':<13}{shown((header.ssl.version or 'yes').encode())}{cn}{verified}"
    if header.authority is not None:
        yield f"{'asked for':<13}{shown(header.authority.encode(), 255)}"


def written(address: object) -> str:
    """Write an address of the socket module as people do."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):
        return shown(address, 108)
    return shown(str(address).encode(errors="surrogateescape"), 108) or "(a UNIX socket without a name)"


def _table(explained: Explained, wrong_at: int | None, colours: Colours, at: int) -> Iterator[str]:
    """Yield a row for each field; mark the one with the wrong byte."""
    yield colours.dim(f"  {'bytes':<11} {'hex':<27} {'field':<22} {'value':<44} rules")
    fields = explained.fields
    for number, one in enumerate(fields):
        if number == _MOST_ROWS:
            yield f"  ... and {len(fields) - number} fields more"
            return
        is_wrong = wrong_at is not None and (
            one.start <= wrong_at < one.end or (wrong_at >= one.end and one is fields[-1])
        )
        row = _row(one, explained.data, at)
        yield colours.bad(f"> {row}") if is_wrong else f"  {row}"


def _row(one: Field, data: bytes, at: int) -> str:
    start, end = at + one.start, at + one.end
    where = f"{start}" if end - start == 1 else f"{start}-{end - 1}"
    value = data[one.start : one.end]
    hex_ = value[:_HEX_BYTES].hex(" ") + (" .." if len(value) > _HEX_BYTES else "")
    name = "  " * (one.depth - 1) + one.name if one.depth else one.name
    return f"{where:<11} {hex_:<27} {name:<22} {one.value:<44} {', '.join(one.rules)}".rstrip()


def _fault(
    explained: Explained, fault: InvalidHeader | IncompleteHeader, colours: Colours, at: int
) -> Iterator[str]:
    if isinstance(fault, IncompleteHeader):
        more = "1 more byte is" if fault.needed == 1 else f"{fault.needed} more bytes are"
        yield (
            colours.bad(f"NOT WHOLE: at least {more} missing") if explained.data else colours.bad("NOT WHOLE")
        )
        announced = len(explained.data) + fault.needed
        if announced > DEFAULT_LONGEST:
            yield f"  It would have {announced} bytes. A Listener takes {DEFAULT_LONGEST}: the outcome is oversized."
            return
        yield "  A Listener waits header_timeout= for them; the outcome is then timeout, or closed-early if the peer closes."
        yield from _line_end(explained.data)
        return
    code = fault.reason
    yield colours.bad(f"WRONG at byte {at + fault.offset}: {text_of(code)} ({code})")
    yield from (f"  {line}" for line in _around(explained.data, fault.offset))
    row = HEADER_FAULTS[code]
    for rule in row.rules:
        yield f"  rule {rule}: {without_marks(RULES[rule])}"
    yield f"  the sender must: {without_marks(row.remedy)}"
    yield f"  a Listener counts it as {outcome_of(code)}"
    yield from _line_end(explained.data)


def _around(data: bytes, offset: int) -> Iterator[str]:
    """Show the bytes about a place, and point at it. Lines of version 1 are shown as text."""
    start = max(0, offset - 40) if data.startswith(V1_SIGNATURE) else max(0, offset - 8)
    if data.startswith(V1_SIGNATURE):
        line, caret = shown(data[start : offset + 24], 80), len(shown(data[start:offset], 80))
    else:
        line, caret = data[start : offset + 8].hex(" "), (offset - start) * 3
    yield line
    yield " " * caret + "^"


def _line_end(data: bytes) -> Iterator[str]:
    """Say so if only the line end is wrong: terminals and editors lose a CR."""
    if not data.startswith(V1_SIGNATURE):
        return
    line = data[:DEFAULT_LONGEST].partition(b"\n")[0].rstrip(b"\r")
    if explain(line + b"\r\n").header is not None:
        yield (
            "  With CR LF (\\r\\n) behind the destination port the line is valid. If you copied it from a terminal or an "
            "editor, its end was lost there, and all may be well."
            if not line.startswith(b"PROXY UNKNOWN")
            else "  With CR LF (\\r\\n) at its end the line is valid."
        )
