"""The byte vectors of tests/vectors as fixtures. A test that asks for one runs once for each vector.

Tests of connections run on asyncio and uvloop, and leave nothing behind.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import leaks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

# A slow machine must not fail a test. pytest's timeout ends a test that hangs.
settings.register_profile("codec", deadline=None)
settings.load_profile("codec")

VECTORS_FILE = Path(__file__).parents[1] / "vectors" / "vectors.json"

Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes | None

# Each fixture's name, and the vectors that it gives.
FIXTURES = {
    "vector": {"ok", "error", "incomplete"},
    "valid_vector": {"ok"},
    "invalid_vector": {"error"},
    "incomplete_vector": {"incomplete"},
}


@dataclass(frozen=True)
class Vector:
    """A vector of vectors.json. The fields of the header are set if `expect` is ``"ok"``."""

    name: str
    data: bytes
    expect: str
    version: int | None
    command: str | None
    family: str | None
    transport: str | None
    source: Address
    destination: Address
    consumed: int
    tlvs: tuple[tuple[int, bytes], ...]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture in FIXTURES.keys() & metafunc.fixturenames:
        vectors = [vector for vector in VECTORS if vector.expect in FIXTURES[fixture]]
        metafunc.parametrize(fixture, vectors, ids=[vector.name for vector in vectors])


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return leaks.loop_factories()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    if connects(item):
        leaks.setup(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if connects(item):
        leaks.call()
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if connects(item):
        leaks.teardown(item)
    return outcome


def connects(item: pytest.Item) -> bool:
    """Only these tests open connections.

    Looking for leaks takes ten milliseconds, and the vectors are thousands of tests.
    """
    return item.path.name == "test_connect.py"


def load_vector(line: dict[str, Any]) -> Vector:
    return Vector(
        name=line["name"],
        data=bytes.fromhex(line["hex"]),
        expect=line["expect"],
        version=line.get("version"),
        command=line.get("command"),
        family=line.get("family"),
        transport=line.get("transport"),
        source=load_address(line.get("src")),
        destination=load_address(line.get("dst")),
        consumed=line.get("consumed", 0),
        tlvs=tuple((kind, bytes.fromhex(value)) for kind, value in line.get("tlvs", ())),
    )


def load_address(label: str | None) -> Address:
    """Return the address of a label, in the form of the socket module."""
    if label is None:
        return None
    if label.startswith("unix:"):
        # The label writes bytes that are not UTF-8 as \\xNN.
        return os.fsdecode(label.removeprefix("unix:").encode().decode("unicode_escape").encode("latin-1"))
    if label.startswith("unix-abstract:"):
        return bytes.fromhex(label.removeprefix("unix-abstract:"))
    host, _, port = label.rpartition(":")
    if host.startswith("["):
        return (host.strip("[]"), int(port), 0, 0)
    return (host, int(port))


VECTORS = [load_vector(line) for line in json.loads(VECTORS_FILE.read_text())]
