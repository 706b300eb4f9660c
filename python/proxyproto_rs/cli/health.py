"""`proxyproto-rs health`: whether a broker serves its clients, as an exit status for whoever restarts it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import operating
from .colours import printable
from .trouble import Trouble

if TYPE_CHECKING:
    import argparse

HELP = "say whether a broker serves its clients"
EXAMPLES = """\
proxyproto-rs health --config broker.yaml
proxyproto-rs health --config broker.yaml --alive
PROXYPROTO_RS_URL=https://mqtt-1.internal:8083 proxyproto-rs health
"""
EXTRA = "mqtt"

_UNHEALTHY = 1  # Docker knows 0 and 1 only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument("--config", metavar="FILE", help="the broker's configuration: where its API is")
    parser.add_argument(
        "--alive",
        action="store_true",
        help="ask only whether it runs, and not whether store and servers are there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask, and return 0 or 1."""
    try:
        api = operating.connect(arguments, needs_token=False)
        answer = api.ask("GET", "/healthz" if arguments.alive else "/readyz")
    except Trouble as trouble:
        sys.stderr.write(f"proxyproto-rs health: {printable(str(trouble))}\n")
        return _UNHEALTHY
    print(answer["status"])
    return 0
