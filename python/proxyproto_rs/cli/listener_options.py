"""The options of a Listener as options of the command line. They are in the namespace only if they were given."""

from __future__ import annotations

import argparse
from typing import Any

NAMES = (
    *("trusted", "proxy_protocol", "untrusted", "header_timeout", "health_checks", "allow", "deny"),
    *("max_connections", "max_connections_per_client", "max_rate_per_client", "burst_per_client"),
    *("require_tls", "require_client_cert"),
)
"""Their names in the namespace, which are those of Listener's keywords."""


def add_to(parser: Any) -> None:
    """Add them to a parser or to a group of one."""

    def add(option: str, text: str, **keywords: Any) -> None:
        parser.add_argument(option, help=text, default=argparse.SUPPRESS, **keywords)

    add(
        "--trusted",
        "the proxies that are believed: addresses and CIDRs, with commas",
        type=_networks,
        metavar="NETWORKS",
    )
    add(
        "--proxy-protocol", "whether connections begin with a header", choices=("required", "optional", "off")
    )
    add("--untrusted", "what happens to other peers", choices=("refuse", "direct"))
    add("--header-timeout", "how long a connection has for its header", type=float, metavar="SECONDS")
    add(
        "--health-checks",
        "whether the application serves connections of the proxy itself",
        choices=("deliver", "close"),
    )
    add("--allow", "the clients that are served", type=_networks, metavar="NETWORKS")
    add("--deny", "the clients that are not", type=_networks, metavar="NETWORKS")
    add("--max-connections", "how many connections may be open", type=int, metavar="N")
    add(
        "--max-connections-per-client", "how many connections one client may have open", type=int, metavar="N"
    )
    add(
        "--max-rate-per-client",
        "how many connections one client may open per second",
        type=float,
        metavar="N",
    )
    add("--burst-per-client", "how many of these it may open at once", type=int, metavar="N")
    add("--require-tls", "refuse clients that did not come over TLS", action="store_true")
    add("--require-client-cert", "refuse clients without a verified certificate", action="store_true")


def _networks(text: str) -> list[str]:
    return [network.strip() for network in text.split(",") if network.strip()]
