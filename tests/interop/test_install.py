"""docs/howto/install.md names the same extras and versions of Python and Rust as the project's own files."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # zensical brings it

from interop.pages import DOCS, read, run_example, text

if TYPE_CHECKING:
    import pytest

PAGE = "howto/install.md"
ROOT = DOCS.parent
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_the_check_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    run_example(PAGE, "check")
    assert capsys.readouterr().out.rstrip() == text(PAGE, "check")


def test_extras_are_those_of_the_package() -> None:
    table = re.findall(r"^\| `(\w+)` \| .* \| `pip install '\.\[(?:\w+,)*(\w+)\]'` \|$", read(PAGE), re.M)
    assert [name for name, _ in table] == [extra for _, extra in table]
    section = PROJECT.split("\n[project.optional-dependencies]\n")[1].split("\n[")[0]
    assert [name for name, _ in table] == re.findall(r"^(\w+) = ", section, re.M)


def test_the_extra_of_amqtt_has_all_of_mqtt() -> None:
    extras = tomllib.loads(PROJECT)["project"]["optional-dependencies"]
    assert set(extras["mqtt"]) < set(extras["amqtt"])
    assert [one for one in extras["mqtt"] if one.startswith("amqtt")] == []


def test_pythons_are_those_of_the_package() -> None:
    versions = re.findall(r"Python :: (3\.\d+)\"", PROJECT)
    (row,) = re.findall(r"^\| Python \| (.*) \|$", read(PAGE), re.M)
    assert re.findall(r"3\.\d+", row) == versions


def test_rust_is_the_oldest_that_builds_it() -> None:
    crate = ROOT / "rust" / "python" / "Cargo.toml"
    (rust,) = re.findall(r'^rust-version = "(.*)"$', crate.read_text(), re.M)
    assert set(re.findall(r"Rust (\d[\d.]+\d)|rustc (\d[\d.]+\d)", read(PAGE))) == {(rust, ""), ("", rust)}


def test_the_wheel_is_for_the_glibc_and_the_abi_that_the_page_names() -> None:
    # manylinux2014 is glibc 2.17 (PEP 599).
    assert "--compatibility manylinux2014" in (ROOT / ".ci" / "wheels").read_text()
    assert '"abi3-py310"' in (ROOT / "rust" / "python" / "Cargo.toml").read_text()
    assert "glibc 2.17" in read(PAGE)
    assert "cp310-abi3" in read(PAGE)
