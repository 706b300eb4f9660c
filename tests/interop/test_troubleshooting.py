"""The quotes in docs/howto/troubleshooting.md are texts of the code, and the page names every outcome."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from interop.pages import DOCS, read
from proxyproto_rs import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = "howto/troubleshooting.md"
ROOT = DOCS.parent


def quotes(heading: str) -> list[str]:
    """The quotes, in backticks, in the first column of the table under a heading."""
    section = read(PAGE).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| ", section, re.M)
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


def test_every_refused_outcome_has_a_row() -> None:
    reasons = {quote.partition(":")[0] for quote in quotes("A line in the log")}
    with Listener("127.0.0.1", 0, trusted=[]) as listener:
        refused = list(listener.stats())[5:]
    assert refused[0] == "untrusted"
    assert set(refused) <= reasons


def texts_of_the_log() -> str:
    """All texts of the log: the lines of the page of outcomes, which another test compares with the log, and the code's."""
    crates = (ROOT / "rust" / "acceptor" / "src", ROOT / "rust" / "codec" / "src")
    code = "".join(path.read_text() for crate in crates for path in sorted(crate.rglob("*.rs")))
    code = re.sub(r"\\\n\s*", "", code).replace('\\"', '"')  # string literals over several lines
    code += (ROOT / "python" / "proxyproto_rs" / "_reports.py").read_text()
    return read("reference/outcomes.md") + code


@pytest.mark.parametrize("quote", quotes("A line in the log"))
def test_lines_are_those_of_the_log(quote: str) -> None:
    texts = texts_of_the_log()
    # A line is put together from the reason, what came, and the remedy. Each is a text of its own.
    pieces = [piece.removeprefix("is ") for piece in re.split(r"\s*\.\.\.\s*|\. (?=[A-Z])|^[\w-]+: ", quote)]
    assert [piece for piece in pieces if piece not in texts] == []


def bind_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        Listener("127.0.0.1", taken.getsockname()[1], trusted=[])


def ask_a_closed_listener() -> None:
    listener = Listener("127.0.0.1", 0, trusted=[])
    listener.close()
    listener.listen()


def give_options(**options: object) -> Callable[[], object]:
    return lambda: Listener("127.0.0.1", 0, **options)  # type: ignore[arg-type]  # wrong ones, on purpose


PROVOKED = {
    "RuntimeError: systemd has passed no socket": Listener.from_systemd,
    'ValueError: trusted is needed with proxy_protocol="optional"': give_options(proxy_protocol="optional"),
    'ValueError: trusted: "10.0.0.1/8" has host bits set': give_options(trusted=["10.0.0.1/8"]),
    'ValueError: trusted: "lb.example" is not an IPv4 or IPv6 address or network': give_options(
        trusted=["lb.example"]
    ),
    "TypeError: Listener() got an unexpected keyword argument ...": give_options(max_connection=1),
    "OSError: [Errno 98] Address already in use (while attempting to bind on address ...)": bind_a_port_that_is_taken,
    "OSError: [Errno 9] the listener is closed": ask_a_closed_listener,
}

# These errors need a process or a loop of their own. The last one is Python's.
IN_A_PROGRAM = {
    "RuntimeError: uvloop cannot serve a Listener that is given as sock=": """
        async def main():
            await asyncio.start_server(print, sock=listener)
        uvloop.new_event_loop().run_until_complete(main())
    """,
    "RuntimeError: this listener was made before a fork": """
        if os.fork() == 0:
            listener.accept()
        else:
            os.wait()
    """,
    "AttributeError: 'NoneType' object has no attribute ...": """
        get_header(listener).authority
    """,
}


def test_every_error_is_provoked() -> None:
    assert {*PROVOKED, *IN_A_PROGRAM} == set(quotes("An error in your program"))


@pytest.mark.parametrize("quote", PROVOKED)
def test_errors_are_those_of_the_code(quote: str) -> None:
    with pytest.raises((OSError, RuntimeError, TypeError, ValueError)) as caught:
        PROVOKED[quote]()
    kind = "OSError" if isinstance(caught.value, OSError) else type(caught.value).__name__
    assert f"{kind}: {caught.value}".startswith(quote.partition("...")[0])


@pytest.mark.parametrize("quote", IN_A_PROGRAM)
def test_errors_of_programs_are_those_of_the_code(quote: str) -> None:
    program = """
import asyncio, os, sys, uvloop
from proxyproto_rs import Listener, get_header

listener = Listener("127.0.0.1", 0, trusted=[])
""" + textwrap.dedent(IN_A_PROGRAM[quote])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert quote.partition("...")[0] in ended.stderr
