"""`proxyproto-rs explain`: what an outcome, a reason or a rule means, what causes it, and what to do."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING

from proxyproto_rs.explanations import ACCEPTED, ENDINGS, LOGINS, REFUSED

from .colours import Colours, printable, without_marks
from .header_faults import HEADER_FAULTS, outcome_of, text_of
from .rules import RULES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "say what an outcome, a reason or a rule means, what causes it and what to do"
EXTRA = None
EXAMPLES = """\
proxyproto-rs explain missing-header
proxyproto-rs explain port-leading-zero
proxyproto-rs explain R14
proxyproto-rs explain                     # lists all that it knows
"""

_UNKNOWN = 1

_KINDS = (
    ("a Listener served the connection", ACCEPTED),
    ("a Listener refused the connection", REFUSED),
    ("the MQTT broker refused the login", LOGINS),
    ("a session of the MQTT broker ended", ENDINGS),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    reason = parser.add_argument(
        "reason",
        metavar="REASON",
        nargs="?",
        help="an outcome or reason of the log, a code of InvalidHeader.reason, or the number of a rule",
    )
    # Shell completion asks for it. As choices= they would fill the help.
    reason.completer = lambda **_: list(known())  # type: ignore[attr-defined]


def run(arguments: argparse.Namespace) -> int:
    """Explain one word, or list all; return 1 if the word is not known."""
    if arguments.reason is None:
        for title, codes in _listed():
            print(f"{title}\n  {' '.join(codes)}\n")
        return 0
    # A log line says "missing-header:", a rule may be written r14.
    word = arguments.reason.strip().rstrip(":.,")
    paragraphs = list(_explain(word.upper() if word.upper() in RULES else word.lower()))
    if not paragraphs:
        near = difflib.get_close_matches(word.lower(), known(), 3)
        hint = f"Near it: {', '.join(near)}." if near else "`proxyproto-rs explain` lists all."
        sys.stderr.write(f"proxyproto-rs explain: nothing is called {printable(word)[:80]!r}. {hint}\n")
        return _UNKNOWN
    print("\n\n".join(paragraphs))
    return 0


def known() -> dict[str, None]:
    """Return every word that can be explained, each once."""
    return dict.fromkeys(word for _, words in _listed() for word in words)


def _listed() -> Iterator[tuple[str, list[str]]]:
    for title, table in _KINDS:
        yield f"{title[0].upper()}{title[1:]}", list(table)
    yield "A header is not valid", list(HEADER_FAULTS)
    yield "Rules of the protocol", list(RULES)


def _explain(word: str) -> Iterator[str]:
    colours = Colours(sys.stdout)
    for title, table in _KINDS:
        if word in table:
            row = table[word]
            yield "\n".join(
                (
                    f"{colours.bold(word)}: {title}",
                    f"  it means   {without_marks(row.meaning)}",
                    f"  because    {without_marks(row.cause)}",
                    f"  do         {without_marks(row.remedy)}",
                )
            )
    if word in HEADER_FAULTS:
        fault = HEADER_FAULTS[word]
        lines = [f"{colours.bold(word)}: a header is not valid", f"  it means   {text_of(word)}"]
        lines += [f"  rule       {rule}: {without_marks(RULES[rule])}" for rule in fault.rules]
        lines += [f"  counted as {outcome_of(word)}", f"  the sender {without_marks(fault.remedy)}"]
        yield "\n".join(lines)
    if word in RULES:
        yield f"{colours.bold(word)}: a rule of the protocol\n  {without_marks(RULES[word])}"
