"""docs/ as a site: every page has its place, and no page asks anything of another server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import proxyproto_rs
from interop.pages import DOCS, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # zensical brings it

CONFIG = DOCS.parent / "zensical.toml"


def pages_of(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from pages_of(value if isinstance(value, list) else [value])


def test_every_page_has_its_place_once() -> None:
    nav = list(pages_of(tomllib.loads(CONFIG.read_text())["project"]["nav"]))
    assert sorted(nav) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_public_name_shows_its_docstring() -> None:
    shown = re.findall(r"^::: proxyproto_rs\.(\w+)$", read("reference/python.md"), re.M)
    assert sorted(shown) == sorted(set(proxyproto_rs.__all__) - {"__version__"})


class Fetched(HTMLParser):
    """What a browser fetches for a page without being asked to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "src" in values:
            self.addresses.append(values["src"] or "")
        if tag == "link" and values.get("rel") != "canonical":
            self.addresses.append(values.get("href") or "")


def test_no_page_asks_anything_of_another_server(tmp_path: Path) -> None:
    shutil.copy(CONFIG, tmp_path)
    for folder in ("docs", "python"):
        shutil.copytree(
            DOCS.parent / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "target" / "site"
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        foreign = [address for address in Fetched(page.read_text()).addresses if "//" in address]
        assert foreign == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)]*", style.read_text()) == [], style
