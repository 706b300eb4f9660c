"""`proxyproto-rs listeners`: a broker's ports, and why each refused whom."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from . import operating
from .colours import Colours, printable, without_marks
from .operating import connect, moment, reported

if TYPE_CHECKING:
    import argparse

HELP = "show the ports of a broker, and why each refused whom"
EXAMPLES = """\
proxyproto-rs listeners --config broker.yaml
proxyproto-rs listeners --refusals
proxyproto-rs listeners --json | jq '.listeners[].outcomes'
"""
EXTRA = "mqtt"

_COLUMNS: list[operating.Column] = [
    ("name", lambda row: row["name"]),
    ("type", lambda row: row["type"]),
    ("address", lambda row: row["address"]),
    ("PROXY protocol", lambda row: row["proxyProtocol"]),
    ("trusted", lambda row: "every peer" if row["trusted"] is None else ", ".join(row["trusted"])),
    ("accepted", lambda row: row["accepted"]),
    ("refused", lambda row: row["refused"]),
    ("open", lambda row: row["open"]),
    ("pending", lambda row: row["pending"]),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    operating.add_arguments(parser)
    parser.add_argument(
        "--refusals", action="store_true", help="show the last refusals, and what to do about each"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if the broker has ports, with --refusals if it has refused anybody."""
    with reported("listeners"):
        api = connect(arguments)
        if arguments.refusals and not arguments.watch:
            found = api.ask("GET", "/api/listeners")
            refusals = [(port, one) for port in found["listeners"] for one in port["lastRefusals"]]
            print(json.dumps([one for _, one in refusals], indent=1) if arguments.json else _told(refusals))
            return operating.FOUND if refusals else operating.NOTHING
        return operating.show(
            api,
            arguments,
            lambda: api.ask("GET", "/api/listeners"),
            _COLUMNS,
            lambda found: found["listeners"],
        )


def _told(refusals: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    colours = Colours(sys.stdout)
    lines = []
    for port, one in refusals:
        whom = f"{one['client']} (by {one['peer']})" if one["client"] else one["peer"]
        times = f", {one['count']} times" if one["count"] > 1 else ""
        lines.append(
            f"{moment(one['time'])}  {port['name']}  {printable(whom)}  {colours.bad(one['reason'])}{times}"
        )
        lines.append(f"    {printable(one['detail'])}")
        lines.append(f"    What to do: {without_marks(printable(one['remedy']))}")
    return "\n".join(lines) or "(none)"
