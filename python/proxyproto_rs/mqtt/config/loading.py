"""Turns a file and variables into a valid model that can be used, or into all their errors at once."""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from .embedded import AclRule
from .errors import ConfigError, Problem
from .http import HttpConfig
from .inheritance import kind_of_backend, resolve
from .listener import ListenerConfig, ProxyConfig
from .messages import text_of
from .rules import ANONYMOUS, Behind, Finding, Served, check
from .sections import AccessRule, AmqttConfig, MqttConfig
from .source import Source, read_yaml
from .upstream import AuthConfig, BackendConfig, as_list
from .variables import Overlay

if TYPE_CHECKING:
    from collections.abc import Mapping

Model = TypeVar("Model", bound=BaseModel)


def read(
    path: str | os.PathLike[str] | None, environ: Mapping[str, str], *, allow_anonymous: bool
) -> Overlay:
    """Read a file, if there is one, and lay the variables over it. Raises ConfigError if it is no YAML mapping."""
    source = Source() if path is None else _read(path, environ)
    if source.problems and not source.tree:
        raise ConfigError(source.problems)
    overlay = Overlay(source, environ, with_file=path is not None)
    overlay.apply()
    if allow_anonymous:
        overlay.warnings += _let_everybody_in(source.tree)
    return overlay


def validate(model: type[Model], source: Source, *, usable: bool) -> Model:
    """Return the model of the tree. `model` is that of the whole file. Raises ConfigError with all errors.

    With `usable` False the rules that only a broker needs are skipped.
    """
    problems = [*source.problems, *_renamed(source)]
    config: Model | None = None
    try:
        config = model.model_validate(source.tree)
    except ValidationError as wrong:
        problems += [
            source.problem(error["loc"], text_of(error, model)) for error in wrong.errors(include_url=False)
        ]
    if usable:
        problems += [source.problem(finding.path, finding.text) for finding in _check_parts(source)]
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _read(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Source:
    name = os.fspath(path)
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except OSError as wrong:
        raise ConfigError([Problem(name, (), f"cannot be read: {wrong.strerror}")]) from None
    except UnicodeDecodeError as wrong:
        raise ConfigError([Problem(name, (), f"is not UTF-8 text (byte {wrong.start})")]) from None
    source = read_yaml(name, text, environ)
    for written, origin in list(source.origins.items()):
        if written[-1:] == ("proxy_enabled",):  # the alias: values are shown under proxy_protocol
            source.origins.setdefault((*written[:-1], "proxy_protocol"), origin)
    return source


def _let_everybody_in(tree: dict[str, Any]) -> list[str]:
    kind = kind_of_backend(tree)
    if kind == "embedded":
        if tree.get("auth") is not None:
            return []  # the configured sources decide
        tree["auth"] = ["anonymous"]
        return ["--allow-anonymous: there is no auth, so whoever gives no user name may log in"]
    if kind != "amqtt":
        return ["--allow-anonymous changes nothing: the servers of backend.upstream decide"]
    amqtt = tree.setdefault("amqtt", {})
    plugins = amqtt.setdefault("plugins", {}) if isinstance(amqtt, dict) else None
    if not isinstance(plugins, dict) or plugins:
        return []  # the configured plugins decide
    plugins[ANONYMOUS] = {}
    return ["--allow-anonymous: no auth plugin is configured, so everybody may log in under any name"]


def _check_parts(source: Source) -> list[Finding]:
    """Judge the valid parts, even if the whole is not valid, so that one run reports all errors."""
    resolved = resolve(source.tree)
    trees, rules = resolved.get("listeners"), resolved.get("access")
    names = [*trees, *source.closed] if isinstance(trees, dict) else []
    listeners = [_valid(ListenerConfig, tree) for tree in trees.values()] if isinstance(trees, dict) else []
    access = [_valid(AccessRule, tree) for tree in rules] if isinstance(rules, list) and names else []
    return list(
        check(
            [listener for listener in listeners if listener is not None],
            _valid(AmqttConfig, resolved.get("amqtt") or {}),
            [(position, rule) for position, rule in enumerate(access) if rule is not None],
            names,
            behind=_behind(resolved),
            http=Served(
                None if resolved.get("http") is None else _valid(HttpConfig, resolved["http"]),
                _valid(ProxyConfig, resolved.get("proxy") or {}),
            ),
        )
    )


def _behind(tree: Mapping[str, Any]) -> Behind:
    auth = as_list(tree.get("auth") or ())
    sources = [_valid(AuthConfig, one) for one in auth] if isinstance(auth, (list, tuple)) else [None]
    acl = tree.get("acl") or ()
    rules = [_valid(AclRule, one) for one in acl] if isinstance(acl, (list, tuple)) else [None]
    return Behind(
        _valid(BackendConfig, tree["backend"]),
        None if None in sources else tuple(one for one in sources if one is not None),
        _valid(MqttConfig, tree.get("mqtt") or {}),
        None if None in rules else tuple(rule for rule in rules if rule is not None),
    )


def _valid(model: type[Model], tree: Any) -> Model | None:
    try:
        return model.model_validate(tree)
    except ValidationError:
        return None


def _renamed(source: Source) -> list[Problem]:
    listeners = source.tree.get("listeners")
    if not isinstance(listeners, dict):
        return []
    return [
        source.problem(
            ("listeners", name, "name"), "unknown key: a listener's name is the key it stands under"
        )
        for name, own in listeners.items()
        if isinstance(own, dict) and "name" in own
    ]
