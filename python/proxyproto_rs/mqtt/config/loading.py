"""Turns a file and variables into a BrokerConfig that can be used, or into all their errors at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from .broker import BrokerConfig
from .errors import ConfigError, Path, Problem
from .inheritance import resolve
from .listener import ListenerConfig
from .loaded_from import LoadedFrom
from .messages import text_of, written_at
from .rules import ANONYMOUS, Finding, check
from .sections import AmqttConfig
from .source import Source, read_yaml
from .variables import Overlay

if TYPE_CHECKING:
    from collections.abc import Mapping

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration, the origins of its values, and warnings to log before it is used."""

    config: BrokerConfig
    origins: Mapping[Path, str]
    warnings: tuple[str, ...]

    def origin(self, path: Path) -> str:
        """Where a value comes from: `broker.yaml:6`, a variable's name, or `default`."""
        return self.origins.get(path) or self.origins.get(written_at(path)) or "default"

    def located(self, error: ConfigError) -> ConfigError:
        """Add the places of the keys to errors that were found later, in a certificate or a plugin's options."""
        source = Source(origins=dict(self.origins))
        return ConfigError(
            problem if problem.origin else _problem(source, problem.path, problem.text)
            for problem in error.problems
        )


def load(
    path: str | os.PathLike[str] | None,
    *,
    environ: Mapping[str, str] | None = None,
    allow_anonymous: bool = False,
    usable: bool = True,
) -> Loaded:
    """Load as `BrokerConfig.load` does.

    With `usable` False it skips the rules that only a broker needs, to show the values.
    """
    loaded_from = LoadedFrom(path, environ, allow_anonymous)
    environ = os.environ if environ is None else environ
    source = Source() if path is None else _read(path, environ)
    if source.problems and not source.tree:
        raise ConfigError(source.problems)
    overlay = Overlay(source, environ, with_file=path is not None)
    overlay.apply()
    if allow_anonymous:
        overlay.warnings += _let_everybody_in(source.tree)
    if source.tree.get("http") is not None:
        overlay.warnings.append(
            "http: this version serves no HTTP; the section is validated and nothing else"
        )
    config = _validate(source, usable=usable)
    config._loaded_from = loaded_from  # pydantic wants the underscore of what is no field
    return Loaded(config, source.origins, tuple(overlay.warnings))


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
    amqtt = tree.setdefault("amqtt", {})
    plugins = amqtt.setdefault("plugins", {}) if isinstance(amqtt, dict) else None
    if not isinstance(plugins, dict) or plugins:
        return []  # the configured plugins decide
    plugins[ANONYMOUS] = {}
    return ["--allow-anonymous: no auth plugin is configured, so everybody may log in under any name"]


def _validate(source: Source, *, usable: bool) -> BrokerConfig:
    resolved = resolve(source.tree)
    problems = [*source.problems, *_renamed(source)]
    config: BrokerConfig | None = None
    try:
        config = BrokerConfig.model_validate(source.tree)
    except ValidationError as wrong:
        problems += [
            _problem(source, error["loc"], text_of(error)) for error in wrong.errors(include_url=False)
        ]
    # If the whole is not valid, the rules still judge its valid parts, so that one run reports all errors.
    findings = list(check(config.listeners.values(), config.amqtt)) if config else _check_parts(resolved)
    if usable:
        problems += [_problem(source, finding.path, finding.text) for finding in findings]
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _check_parts(resolved: Mapping[str, Any]) -> list[Finding]:
    trees = resolved.get("listeners")
    parts = [_valid(ListenerConfig, tree) for tree in trees.values()] if isinstance(trees, dict) else []
    amqtt = _valid(AmqttConfig, resolved.get("amqtt") or {})
    return list(check([part for part in parts if part is not None], amqtt))


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
        _problem(
            source, ("listeners", name, "name"), "unknown key: a listener's name is the key it stands under"
        )
        for name, own in listeners.items()
        if isinstance(own, dict) and "name" in own
    ]


def _problem(source: Source, path: Path, text: str) -> Problem:
    """Blame the line where the value is written. An inherited value is wrong once, in its global section."""
    if path not in source.origins and written_at(path) in source.origins:
        path = written_at(path)
    return Problem(source.origin(path), path, text)
