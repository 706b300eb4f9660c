"""Puts pydantic's errors into the words of the file: which key, what it must be, what it is."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from .errors import Path, got

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MISPLACED = {
    (
        "amqtt",
        "listeners",
    ): "belongs at the top of the file, not under amqtt: our listeners read the PROXY header",
    ("amqtt", "auth"): "is not passed on: put the plugin's class and options under amqtt.plugins",
    ("amqtt", "topic-check"): "is not passed on: put the plugin's class and options under amqtt.plugins",
}

_TEXTS = {
    "missing": "is required",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "too_short": "must not be empty",
    "value_error": "{error}",
}
_WITHOUT_VALUE = frozenset({"missing", "too_short", "extra_forbidden"})


def text_of(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the text that follows the key's name. `model` is that of the whole file."""
    path: Path = error["loc"]
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(path, model)
    template = _TEXTS.get(kind)
    context = {key: str(value) for key, value in error.get("ctx", {}).items()}
    if kind == "literal_error":
        context["expected"] = context["expected"].replace("'", "")
    text = error["msg"] if template is None else template.format(**context)
    if kind in _WITHOUT_VALUE or text.startswith('"'):  # a list's text names the wrong item
        return text
    return f"{text} {got(path, error['input'])}"


def _unknown(path: Path, model: type[BaseModel]) -> str:
    key = str(path[-1])
    for misplaced, text in _MISPLACED.items():
        if path[-2:] == misplaced:
            return text
    if key == "proxy_enabled":
        return "stands beside proxy_protocol, which says the same: keep one"
    near = difflib.get_close_matches(
        key.lower().replace("-", "_"), known_keys(path[:-1], model), n=1, cutoff=0.6
    )
    return f'unknown key (did you mean "{near[0]}"?)' if near else "unknown key"


def known_keys(path: Path, model: type[BaseModel]) -> list[str]:
    """The keys that the section at `path` may have."""
    kind: type[BaseModel] | None = model
    parts = iter(path)
    for part in parts:
        known = kind.model_fields.get(str(part)) if kind else None
        kind = _model_in(known.annotation) if known else None
        if known and get_origin(known.annotation) in (dict, tuple):
            next(parts, None)  # a name under `listeners`, a position in `access`
    if kind is None:
        return []
    keys = [name for name in kind.model_fields if not (path[:1] == ("listeners",) and name == "name")]
    return [*keys, "proxy_enabled"] if "proxy_protocol" in keys else keys


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in `Model`, `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
