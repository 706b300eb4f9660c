"""`proxyproto-rs uvicorn`: uvicorn, on a port that wants a PROXY header."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys

HELP = "run uvicorn on a port that wants a PROXY header"
EXTRA = None
TAKES_REST = True

EXAMPLES = """\
proxyproto-rs uvicorn --trusted 10.0.0.0/8 --host 0.0.0.0 --port 8000 --workers 4 app:app
"""

_DESCRIPTION = (
    "Runs uvicorn on a port that wants a PROXY header. It takes the options of uvicorn too, in any order."
)
_NOTE = """
scope["extensions"]["proxy_protocol"] tells the application what the header says, and request.client is the client.
`uvicorn --help` shows the other options.
"""
_FAILED, _MISTAKE = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.description, parser.epilog = _DESCRIPTION, f"{parser.epilog or ''}{_NOTE}"
    parser.usage = "proxyproto-rs uvicorn [--trusted NETWORKS] [options, uvicorn's too] APP"

    def add(option: str, text: str, **keywords: object) -> None:
        parser.add_argument(option, help=text, default=argparse.SUPPRESS, **keywords)  # type: ignore[arg-type]

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


def run(arguments: argparse.Namespace) -> int:
    """Run uvicorn and return the exit status."""
    try:
        from proxyproto_rs import uvicorn
    except ImportError as missing:
        sys.stderr.write("proxyproto-rs uvicorn needs uvicorn: pip install uvicorn\n")
        if missing.name != "uvicorn":
            raise
        return _FAILED
    options = {name: value for name, value in vars(arguments).items() if name not in ("verb", "rest")}
    try:
        uvicorn.check(options)
    except (TypeError, ValueError) as wrong:
        sys.stderr.write(f"proxyproto-rs uvicorn: {wrong}\n")
        return _MISTAKE
    # uvicorn's command parses its own options, and then calls this.
    command = importlib.import_module("uvicorn.main")
    vars(command)["run"] = functools.partial(uvicorn.run, **options)
    status = command.main(arguments.rest, prog_name="proxyproto-rs uvicorn")
    return int(status or 0)


def _networks(text: str) -> list[str]:
    return [network.strip() for network in text.split(",") if network.strip()]
