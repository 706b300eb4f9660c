"""`proxyproto-rs top`: a broker's busiest addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import operating
from .operating import connect, reported

if TYPE_CHECKING:
    import argparse

HELP = "rank the addresses that keep a broker busy"
EXAMPLES = """\
proxyproto-rs top --config broker.yaml
proxyproto-rs top --by refused --networks --watch
proxyproto-rs top --by bytes --limit 5 --json
"""
EXTRA = "mqtt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    operating.add_arguments(parser)
    operating.add_limit(parser, 20)
    parser.add_argument(
        "--by",
        choices=("connects", "refused", "sessions", "bytes"),
        default="connects",
        help="default %(default)s",
    )
    parser.add_argument("--networks", action="store_true", help="rank /24 networks, in IPv6 /64")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if anybody is there."""
    columns: list[operating.Column] = [
        ("network" if arguments.networks else "address", lambda row: row["address"]),
        (arguments.by, lambda row: round(row["count"])),
    ]
    with reported("top"):
        api = connect(arguments)
        prefix = 24 if arguments.networks else 32
        return operating.show(
            api,
            arguments,
            lambda: api.ask("GET", "/api/top", by=arguments.by, prefix=prefix, limit=arguments.limit),
            columns,
            lambda ranked: ranked,
        )
