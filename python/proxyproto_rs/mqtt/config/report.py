"""Shows every effective value and where it came from, for `--print-config`. Secrets are `***`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from pydantic import SecretStr

from .errors import MASK, Path, dotted, is_secret, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .broker import BrokerConfig, Loaded


def report(loaded: Loaded) -> str:
    """Return one line for each value, `key: value  # origin`, in the order of the file's sections."""
    lines = []
    for path, value in effective(loaded):
        lines.append(
            f"{dotted(path)}: {json.dumps(value, ensure_ascii=False, default=str)}  # {loaded.origin(path)}"
        )
    return "\n".join(lines)


def effective(loaded: Loaded) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of everything in force, with secrets masked."""
    tree = loaded.config.model_dump()
    for listener in tree["listeners"].values():
        del listener["name"]
    yield from _leaves((), tree)


def masked(config: BrokerConfig) -> dict[str, Any]:
    """Return everything in force as a tree of plain values, with secrets masked."""
    tree = config.model_dump()
    for listener in tree["listeners"].values():
        del listener["name"]
    return cast("dict[str, Any]", _masked_tree((), tree))


def _masked_tree(path: Path, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked_tree((*path, key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked_tree((*path, index), item) for index, item in enumerate(value)]
    return _masked(path, value)


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves((*path, index), item)
    else:
        yield path, _masked(path, value)


def _masked(path: Path, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, SecretStr) or (value is not None and any(is_secret(part) for part in path)):
        return MASK
    return without_credentials(value) if isinstance(value, str) else value
