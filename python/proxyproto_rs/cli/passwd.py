"""`proxyproto-rs passwd`: adds, changes and removes users of a password file."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from .colours import printable

if TYPE_CHECKING:
    import argparse

HELP = "add a user to a password file, change the password, or remove the user"
EXTRA = "mqtt"
EXAMPLES = """\
proxyproto-rs passwd users.txt sensor-7
proxyproto-rs passwd users.txt sensor-7 --delete
"""

_UNKNOWN = 1
_MISTAKE = 2
_LONGEST = 65535  # bytes; MQTT writes a password's length in two


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument("file", metavar="FILE", help="lines name:hash; made if it is not there")
    parser.add_argument("user", metavar="USER")
    parser.add_argument("--delete", action="store_true", help="remove the user")


def run(arguments: argparse.Namespace) -> int:
    """Change the file, and return the exit status."""
    from proxyproto_rs.mqtt.policy.password_file import refuse_unusable, remove_user, set_password
    from proxyproto_rs.mqtt.policy.password_table import PasswordFileError

    file, user = arguments.file, arguments.user
    try:
        if arguments.delete:
            if not remove_user(file, user):
                return _refuse(f"{file} has no user {user!r}", _UNKNOWN)
            print(f"removed {printable(user)}")
            return 0
        refuse_unusable(user)  # before it asks for the password
        is_new = set_password(file, user, _password())
    except (PasswordFileError, _BadPassword) as wrong:
        return _refuse(str(wrong), _MISTAKE)
    print(f"{'added' if is_new else 'changed'} {printable(user)}")
    return 0


class _BadPassword(ValueError):
    """What was given cannot be a password."""


def _password() -> str:
    """Ask twice on a terminal, without an echo; else read one line."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            raise _BadPassword("the two passwords differ")
    else:
        line = sys.stdin.buffer.readline(_LONGEST + 2)
        try:
            password = line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise _BadPassword("the password is not UTF-8 text") from None
    if not password:
        raise _BadPassword("the password is empty")
    if len(password.encode("utf-8", "surrogatepass")) > _LONGEST:
        raise _BadPassword(f"the password is longer than the {_LONGEST} bytes that MQTT can carry")
    return password


def _refuse(text: str, status: int) -> int:
    sys.stderr.write(f"proxyproto-rs passwd: {printable(text)}\n")
    return status
