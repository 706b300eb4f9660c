"""Imports run downward only; those for type checkers count too. What stands on the face uses its public names."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "python" / "proxyproto_rs"

# The rooms of the face from top to bottom. A file imports from lower lines only.
ROOMS = """
__init__
_several_hosts
_get_header _listener
_loops.serve
_loops.selector _loops.starting _loops.wrapped
_loops.transport _loops.server
_loops.facts _loops.protocol
_listening_socket
_options
_connect _proxied_socket _reports _wake_fd _systemd
exceptions _loops.which
_core
_annotations _enums _loops.__init__ _without_acceptor
"""
LEVELS = {module: level for level, line in enumerate(reversed(ROOMS.split("\n"))) for module in line.split()}

# The rooms of the broker, likewise: folders, and the files beside them. Rooms on one line do not know each other.
BROKER_ROOMS = """
demo
__init__
service
checking readiness
listening
http
front
backend collector
policy telling
tables
config store
model
"""
BROKER_LEVELS = {
    room: level for level, line in enumerate(reversed(BROKER_ROOMS.split("\n"))) for room in line.split()
}


def imports() -> dict[str, set[str]]:
    """The modules of the package, each with those it imports."""
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py*")
    }
    files = {module: path for module, path in files.items() if path.suffix in (".py", ".pyi")}
    return {module: _imported(module, path, files.keys()) - {module} for module, path in files.items()}


def _imported(module: str, path: Path, modules: object) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = f"proxyproto_rs.{module}".split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            # A name is a module of its own, or is something in `base`.
            found |= {_module(f"{base}.{alias.name}", base) for alias in node.names}
    return {name.removeprefix("proxyproto_rs.") for name in found if name.startswith("proxyproto_rs.")}


def _module(name: str, base: str) -> str:
    for candidate in (name, base):
        path = PACKAGE.parent.joinpath(*candidate.split("."))
        if any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyi")):
            return candidate
        if (path / "__init__.py").exists():
            return f"{candidate}.__init__"
    return base


IMPORTS = imports()
ABOVE = sorted(module for module in IMPORTS if module not in LEVELS)


BROKER = sorted(module for module in IMPORTS if module.startswith("mqtt."))


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_nothing_is_imported_in_a_circle() -> None:
    graphlib.TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("module", sorted(LEVELS))
def test_the_face_imports_downward_only(module: str) -> None:
    upward = {other for other in IMPORTS[module] if LEVELS.get(other, len(LEVELS)) >= LEVELS[module]}
    assert not upward


@pytest.mark.parametrize("module", BROKER)
def test_the_rooms_of_the_broker_import_downward_only(module: str) -> None:
    room = room_of(module)
    others = {room_of(other) for other in IMPORTS[module] if other in BROKER} - {room}
    assert not {other for other in others if BROKER_LEVELS[other] >= BROKER_LEVELS[room]}
    assert not {other for other in IMPORTS[module] if other.startswith("cli.")}


@pytest.mark.parametrize("module", ABOVE)
def test_what_stands_on_the_face_uses_public_names_only(module: str) -> None:
    assert not module.startswith("_"), "a module of the face needs its place in ROOMS"
    private = {other for other in IMPORTS[module] if other in LEVELS and other.startswith("_")}
    # The gateway is the broker's alone, so no face shows it.
    assert private <= ({"__init__", "_core"} if module in BROKER else {"__init__"})
