"""`proxyproto-rs decode`: explains every byte of the headers in what people paste: bytes, hex, dumps, captures."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..colours import Colours, printable
from .capture import is_capture, read_capture, read_packets
from .fields import looks_like
from .pasted import FORMS, NotThisForm, Pasted, read, starts_a_header
from .report import report

if TYPE_CHECKING:
    import argparse

    from .capture import Streams

HELP = "explain every byte of a PROXY header: from bytes, hex, a dump, escapes, base64 or a capture"
EXTRA = None
EXAMPLES = r"""
proxyproto-rs decode 'PROXY TCP4 192.0.2.1 198.51.100.1 51000 443\r\n'
proxyproto-rs decode '0d0a0d0a000d0a515549540a2111000cc0000201c6336401c73801bb'
proxyproto-rs decode capture.pcap         # from tcpdump -w capture.pcap port 1883
tcpdump -X -c 10 port 1883 | proxyproto-rs decode -
""".lstrip()

LARGEST_CAPTURE = 64 << 20
LARGEST_TEXT = 1 << 20
"""The longest header is 65551 bytes, and no form takes ten times as much."""

_FOUND_FAULT, _MISTAKE = 1, 2
_MOST_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument(
        "source",
        metavar="FILE|-|TEXT",
        nargs="?",
        default="-",
        help="a file, the text itself, or - for stdin",
    )
    parser.add_argument(
        "--as", dest="form", choices=tuple(FORMS), help="how it is written; by default, what it looks like"
    )


def run(arguments: argparse.Namespace) -> int:
    """Explain what was given; return 0 if there are headers and all are valid, else 1."""
    try:
        pasted = _get(arguments.source)
        lines, is_well = explain_all(pasted, arguments.form, Colours(sys.stdout))
    except OSError as wrong:
        sys.stderr.write(f"proxyproto-rs decode: {printable(arguments.source)}: {wrong.strerror or wrong}\n")
        return _MISTAKE
    except NotThisForm as wrong:
        sys.stderr.write(f"proxyproto-rs decode: {wrong}\n")
        return _MISTAKE
    print("\n".join(lines))
    return 0 if is_well else _FOUND_FAULT


def explain_all(pasted: bytes, form: str | None, colours: Colours) -> tuple[list[str], bool]:
    """Return the lines about what was pasted, and whether every header in it is valid.

    Raises:
        NotThisForm: It is too large, or not of this `form`.
    """
    if form is None and is_capture(pasted):
        return _of_streams(read_capture(pasted), colours)
    if len(pasted) > LARGEST_TEXT:
        if not starts_a_header(pasted):
            raise NotThisForm(
                f"more than {LARGEST_TEXT} bytes that are no capture: cut them, as with `head -c 100000`"
            )
        pasted = pasted[:LARGEST_TEXT]
    found = read(pasted, form)
    lines = [colours.dim(f"Read as {FORMS[found.form].words}: {sum(map(len, found.pieces))} bytes."), ""]
    if not any(map(starts_a_header, found.pieces)) and (streams := read_packets(found.pieces)) is not None:
        more, is_well = _of_streams(streams, colours)
        return lines + more, is_well
    return _of_pieces(found, lines, colours)


def _of_pieces(found: Pasted, lines: list[str], colours: Colours) -> tuple[list[str], bool]:
    all_well = True
    for number, piece in enumerate(found.pieces[:_MOST_SHOWN]):
        if number:
            lines.append("")
        more, is_well = report(piece, colours)
        lines += more
        all_well = all_well and is_well
    if len(found.pieces) > _MOST_SHOWN:
        lines.append(f"... and {len(found.pieces) - _MOST_SHOWN} more")
    return lines, all_well


def _of_streams(streams: Streams, colours: Colours) -> tuple[list[str], bool]:
    """Explain the streams that begin with a header, and name the others."""
    lines: list[str] = []
    with_header = [stream for stream in streams.found if starts_a_header(stream.data)]
    others = [stream for stream in streams.found if stream.data and not starts_a_header(stream.data)]
    all_well = bool(with_header)
    for stream in with_header[:_MOST_SHOWN]:
        lines.append(colours.bold(stream.title))
        more, is_well = report(bytes(stream.data), colours)
        lines += [*more, ""]
        all_well = all_well and is_well
    if len(with_header) > _MOST_SHOWN:
        lines.append(f"... and {len(with_header) - _MOST_SHOWN} more streams with a header")
    if not with_header:
        lines.append(colours.bad("No stream in it begins with a PROXY header."))
    if others:
        lines.append("Without a header:")
        lines += [
            f"  {stream.title}: {looks_like(bytes(stream.data))}"
            + (
                ""
                if stream.is_from_start or stream.protocol == "UDP"
                else " (its beginning is not in the capture)"
            )
            for stream in others[:_MOST_SHOWN]
        ]
        if len(others) > _MOST_SHOWN:
            lines.append(f"  ... and {len(others) - _MOST_SHOWN} more")
    if streams.left_out:
        lines.append(f"{streams.left_out} packets of further streams were left out.")
    if streams.broken:
        lines.append(f"The rest could not be read: {streams.broken}.")
    return lines, all_well


def _get(source: str) -> bytes:
    if source == "-":
        if sys.stdin.isatty():
            sys.stderr.write("Paste it here, then press Enter and Ctrl-D.\n")
        return sys.stdin.buffer.read(LARGEST_CAPTURE)
    if os.path.exists(source):
        with open(source, "rb") as file:
            return file.read(LARGEST_CAPTURE)
    text = os.fsencode(source)
    # A shell's argument has no line end. One that is meant to be without would be an odd thing to type.
    is_line = text.startswith(b"PROXY") and b"\r" not in text and b"\\" not in text
    return text.rstrip(b"\n") + b"\r\n" if is_line else text
