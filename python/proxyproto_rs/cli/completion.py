"""`proxyproto-rs completion`: the lines that teach a shell to complete our verbs and options, by argcomplete."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "print what a shell needs to complete verbs and options"
EXTRA = "completion"
EXAMPLES = """\
eval "$(proxyproto-rs completion bash)"
eval "$(proxyproto-rs completion zsh)"
proxyproto-rs completion fish | source
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(arguments: argparse.Namespace) -> int:
    """Print the shell's code; return 0."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["proxyproto-rs"], shell=arguments.shell))
    return 0
