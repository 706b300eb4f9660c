"""Reads a YAML file into a tree of plain values, and remembers the line of each value.

It uses `yaml.compose`, because a loaded document has no lines and silently drops repeated keys. The scalars
are those of YAML 1.2 plus yes/no/on/off. There are no dates, no sexagesimal numbers (the port `12:30` would
be 750) and no octal numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from .errors import Path, Problem
from .inheritance import written_at
from .substitution import substitute
from .values import parse_bool

if TYPE_CHECKING:
    from collections.abc import Mapping

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


@dataclass(slots=True)
class Source:
    """A tree and the origin of each value: `broker.yaml:6` or a variable. A value without an origin is a default."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    """The listeners of the file that a variable closes. They are no longer in the tree."""

    def origin(self, path: Path) -> str:
        """Return the origin of the value, or of the nearest section that contains it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "")

    def problem(self, path: Path, text: str) -> Problem:
        """Blame the line where the value is written. An inherited value is wrong once, in its global section."""
        if path not in self.origins and written_at(path) in self.origins:
            path = written_at(path)
        return Problem(self.origin(path), path, text)


def read_yaml(name: str, text: str, environ: Mapping[str, str]) -> Source:
    """Parse `text`, the content of the file `name`. Errors go to `problems`; none is raised."""
    source = Source(origins={(): name})
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        line = mark.line if mark else 0
        source.problems.append(Problem(f"{name}:{line + 1}", (), _syntax(wrong, text, line)))
        return source
    except (yaml.YAMLError, RecursionError) as wrong:
        source.problems.append(Problem(name, (), f"is not valid YAML: {' '.join(str(wrong).split())}"))
        return source
    if node is None:
        return source
    if not isinstance(node, yaml.MappingNode):
        source.problems.append(Problem(f"{name}:{_line(node)}", (), "must be a mapping of keys to values"))
        return source
    tree = _Walk(name, environ, source).value(node, (), ())
    source.tree = tree if isinstance(tree, dict) else {}
    return source


@dataclass(slots=True)
class _Walk:
    name: str
    environ: Mapping[str, str]
    source: Source

    def value(self, node: yaml.Node, path: Path, inside: tuple[int, ...]) -> Any:
        if id(node) in inside:  # an alias of a node that contains it
            self.problem(node, path, "contains itself")
            return None
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self.item(item, (*path, index), inside) for index, item in enumerate(node.value)]
        return self.scalar(node, path)

    def item(self, node: yaml.Node, path: Path, inside: tuple[int, ...]) -> Any:
        self.source.origins[path] = f"{self.name}:{_line(node)}"
        return self.value(node, path, inside)

    def mapping(self, node: yaml.MappingNode, path: Path, inside: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        # A merged mapping (`<<`) supplies the keys that the mapping itself does not have.
        for key, value in node.value:
            if key.tag == _MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    content = self.value(merged, path, inside)
                    if isinstance(content, dict):
                        result = {**content, **result}
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, path, "has a key that is not text")
                continue
            name, here = key.value, (*path, key.value)
            if name in lines:
                self.problem(key, here, f"repeated key (first at line {lines[name]})")
                continue
            lines[name] = _line(key)
            self.source.origins[here] = f"{self.name}:{_line(key)}"
            result[name] = self.value(value, here, inside)
        return result

    def scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        if node.tag == _TAG + "null":
            return None
        if node.tag == _TAG + "bool":
            return parse_bool(text)
        if node.tag == _TAG + "int":
            return int(text)
        if node.tag == _TAG + "float":
            return float(text)
        if node.tag != _TAG + "str":
            self.problem(node, path, f"has a tag that means nothing here: {node.tag}")
            return None
        result = substitute(text, self.environ)
        for name in result.unset:
            self.problem(node, path, f"the variable {name} is not set, and ${{{name}}} gives no default")
        if result.used:
            self.source.origins[path] = f"{self.name}:{_line(node)} (${{{'}, ${'.join(result.used)}}})"
        return result.text or None if result.used else result.text

    def problem(self, node: yaml.Node, path: Path, text: str) -> None:
        self.source.problems.append(Problem(f"{self.name}:{_line(node)}", path, text))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax(wrong: yaml.MarkedYAMLError, text: str, line: int) -> str:
    said = f"is not valid YAML: {wrong.problem or wrong.context}"
    lines = text.splitlines()
    if line < len(lines) and re.search(r":\s*\[[0-9A-Fa-f:.]*\]:", lines[line]):
        said += ' (an IPv6 address needs quotes: "[::]:1883")'
    elif line < len(lines) and lines[line].rstrip().endswith(":memory:"):
        said += ' (it needs quotes: "sqlite::memory:")'
    return said


class _Loader(yaml.SafeLoader):
    """Resolves the scalars that the module's docstring names, and no others."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


_BOOLS = re.compile(r"^(?:yes|no|true|false|on|off)$", re.IGNORECASE)
_Loader.add_implicit_resolver(_TAG + "bool", _BOOLS, list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"^-?(?:0|[1-9][0-9]{0,17})$"), list("-0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", re.compile(r"^-?[0-9]+\.[0-9]+$"), list("-0123456789"))
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])
