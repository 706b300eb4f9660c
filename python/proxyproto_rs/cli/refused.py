"""`proxyproto-rs refused`: whom a broker has refused, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import blocks, operating
from .operating import connect, duration, moment, reported

if TYPE_CHECKING:
    import argparse

HELP = "list the clients that a broker has refused, and why; block their addresses"
EXAMPLES = """\
proxyproto-rs refused --config broker.yaml
proxyproto-rs refused --reason bad-credentials --since 1h
proxyproto-rs refused --ip 203.0.113.0/24 --json
proxyproto-rs refused --reason bad-credentials --since 1h block --for 1h --dry-run
"""
EXTRA = "mqtt"

_COLUMNS: list[operating.Column] = [
    ("last", lambda row: moment(row["ts"])),
    ("address", lambda row: row["ipAddress"]),
    ("client id", lambda row: row["clientId"] or None),
    ("user", lambda row: row["username"]),
    ("reason", lambda row: row["reasonCode"]),
    ("attempts", lambda row: row["attempts"]),
    ("listener", lambda row: row["listener"]),
    ("blocked", lambda row: "yes" if row["isBlocked"] else None),
    ("what came", lambda row: row["reason"]),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    operating.add_arguments(parser)
    operating.add_limit(parser)
    operating.add_client_filters(parser)
    parser.add_argument("--reason", metavar="CODE", help="the reason code: see `proxyproto-rs explain`")
    parser.add_argument("--listener", metavar="NAME", help="the listener")
    parser.add_argument("--since", type=duration, metavar="TIME", help="refused in the last 10m, 24h, 3d")
    blocks.add_block_action(parser.add_subparsers(dest="action", metavar="ACTION"))


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if there are such clients."""
    with reported("refused"):
        api = connect(arguments)
        path = "/api/unauthorized/client/v2"
        if arguments.action == "block":
            return blocks.block_matching(api, arguments, path, _filters(arguments))
        return operating.show(
            api,
            arguments,
            lambda: api.ask("GET", path, pageSize=arguments.limit, **_filters(arguments)),
            _COLUMNS,
            lambda page: page["data"],
        )


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "ipAddress": arguments.ip,
        "clientId": arguments.client,
        "username": arguments.user,
        "reasonCode": arguments.reason,
        "listener": arguments.listener,
        "startTime": None if arguments.since is None else int((time.time() - arguments.since) * 1000),
    }
