"""The code in docs/, as tests run it: fenced blocks, under a comment such as ``<!-- example: echo -->``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"

_EXAMPLE = re.compile(
    r"^<!-- example: (?P<name>[\w-]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


def examples(page: str) -> dict[str, str]:
    """Return the named blocks of a page, such as ``howto/haproxy.md``."""
    found = [(match["name"], match["text"]) for match in _EXAMPLE.finditer(read(page))]
    blocks = dict(found)
    assert len(blocks) == len(found), f"{page} names two examples alike: {[name for name, _ in found]}"
    return blocks


def text(page: str, name: str) -> str:
    """Return the output that a page shows under ``<!-- text: name -->``, without the line's end."""
    match = re.search(rf"^<!-- text: {name} -->\n```text\n(.*?)\n```$", read(page), re.M | re.S)
    assert match, f"{page} shows no text {name!r}"
    return match[1]


def example(page: str, name: str, replacements: dict[str, str] | None = None) -> str:
    """Return a named block, with addresses and paths replaced by those of the test.

    The texts to replace must be there, so a page cannot drift away from its test.
    """
    text = examples(page)[name]
    for old, new in (replacements or {}).items():
        assert old in text, f"example {name!r} of {page} does not hold {old!r}"
        text = text.replace(old, new)
    return text


def run_example(page: str, *names: str, replacements: dict[str, str] | None = None) -> dict[str, Any]:
    """Execute blocks one after the other in one namespace, as a reader would paste them, and return it."""
    namespace: dict[str, Any] = {"__name__": f"docs_{names[-1]}"}
    for name in names:
        code = compile(example(page, name, replacements), f"{DOCS / page}:{name}", "exec", dont_inherit=True)
        exec(code, namespace)
    return namespace


def read(page: str) -> str:
    """Return the text of a page."""
    return (DOCS / page).read_text()
