"""`proxyproto-rs uvicorn`: uvicorn, on a port that wants a PROXY header."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys

from . import listener_options

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

    listener_options.add_to(parser)


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
