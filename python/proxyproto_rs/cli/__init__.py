"""The command `proxyproto-rs`: a file a verb."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Protocol, cast

from proxyproto_rs import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = ("broker", "demo")

_FAILED = 1


class Verb(Protocol):
    """What a verb's module has. It imports what an extra brings only in `run`."""

    HELP: str
    EXTRA: str | None
    """The extra that `run` needs."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Name the verb's options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit status; 2 is a mistake in how it was called."""
    parser = argparse.ArgumentParser(
        prog="proxyproto-rs",
        description="The PROXY protocol for Python servers, and an MQTT broker behind proxies.",
    )
    parser.add_argument("--version", action="version", version=f"proxyproto-rs {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    modules: dict[str, Verb] = {}
    for name in VERBS:
        module = modules[name] = cast("Verb", importlib.import_module(f"{__name__}.{name}"))
        module.add_arguments(verbs.add_parser(name, help=module.HELP, description=module.HELP))
    arguments = parser.parse_args(argv)
    verb = modules[arguments.verb]
    try:
        return verb.run(arguments)
    except ModuleNotFoundError as missing:
        if verb.EXTRA is None:
            raise
        needs = f'pip install "proxyproto_rs[{verb.EXTRA}]"'
        sys.stderr.write(f"proxyproto-rs {arguments.verb} needs {missing.name}: {needs}\n")
        return _FAILED
    except KeyboardInterrupt:
        return 130  # as a shell says it: 128 + SIGINT
