"""The command `proxyproto-rs`. Each verb has a module of its own."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Protocol, cast

from proxyproto_rs import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = (
    *("uvicorn", "broker", "passwd", "demo", "decode", "listen", "probe", "explain", "completion"),
    *("sessions", "refused", "blocks", "top", "listeners", "health", "store"),
)

_FAILED = 1


class Verb(Protocol):
    """The module of a verb. Only its `run` may import what an extra installs."""

    HELP: str
    EXAMPLES: str
    """Command lines that ``--help`` shows, one a line."""
    EXTRA: str | None
    """The extra that `run` needs, if any."""
    TAKES_REST: bool
    """Whether `run` gets the arguments that the parser does not know, as ``arguments.rest``. A module may leave it out."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the verb and return the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit status. Status 2 means that the command line is wrong."""
    parser, modules = make_parser()
    if "_ARGCOMPLETE" in os.environ:
        _complete(parser)
    arguments, rest = parser.parse_known_args(argv)
    arguments.rest = rest
    verb = modules[arguments.verb]
    if rest and not getattr(verb, "TAKES_REST", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return verb.run(arguments)
    except ModuleNotFoundError as missing:
        if verb.EXTRA is None:
            raise
        needs = f'pip install "proxyproto_rs[{verb.EXTRA}]"'
        sys.stderr.write(f"proxyproto-rs {arguments.verb} needs {missing.name}: {needs}\n")
        return _FAILED
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. Python would complain of what is left to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return 130  # the status that shells give a process that SIGINT ended: 128 + SIGINT


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, Verb]]:
    """Return the parser of the whole command, and the module of each verb."""
    parser = argparse.ArgumentParser(
        prog="proxyproto-rs",
        description="The PROXY protocol for Python servers, and an MQTT broker behind proxies.",
    )
    parser.add_argument("--version", action="version", version=f"proxyproto-rs {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    modules: dict[str, Verb] = {}
    for name in VERBS:
        module = modules[name] = cast("Verb", importlib.import_module(f"{__name__}.{name}"))
        # If another program gets the rest, an option of its own must not be taken for the beginning of one of ours.
        may_abbreviate = not getattr(module, "TAKES_REST", False)
        subparser = verbs.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog="examples:\n" + textwrap.indent(module.EXAMPLES, "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=may_abbreviate,
        )
        module.add_arguments(subparser)
    return parser, modules


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that completes a command line, and end the process."""
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    argcomplete.autocomplete(parser)
