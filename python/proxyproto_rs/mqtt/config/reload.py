"""What a reload may change while connections are open, and what needs a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigError, Path, Problem, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .broker import BrokerConfig, Loaded

_FIXED = (("node_id",), ("store",), ("store_file",), ("amqtt",), ("workers",), ("auth",))
_FIXED_IN_LISTENER = (
    ("type",),
    ("bind",),
    ("proxy_protocol",),
    ("proxy", "backlog"),
    ("proxy", "reuse_port"),
)
_HTTP_LIVE = ("token", "token_file", "read_token", "hosts", "metrics_auth")


def refuse_what_needs_a_restart(old: BrokerConfig, new: Loaded) -> None:
    """Raise ConfigError that names each changed key which a running broker cannot change."""
    problems = [
        Problem("" if (origin := new.origin(path)) == "default" else origin, path, text)
        for path, text in needs_restart(old, new.config)
    ]
    if problems:
        raise ConfigError(problems)


def needs_restart(old: BrokerConfig, new: BrokerConfig) -> Iterator[tuple[Path, str]]:
    """Yield each changed key that a running broker cannot change, and why."""
    for path in _FIXED:
        if _value(old, path) != _value(new, path):
            yield path, _changed(old, new, path)
    if old.backend.kind != new.backend.kind:
        yield ("backend",), "is another: this needs a restart"
    elif old.backend.embedded != new.backend.embedded:
        yield ("backend", "embedded"), "has changed: this needs a restart"
    for name in old.listeners.keys() | new.listeners.keys():
        if name not in new.listeners:
            yield ("listeners", name), "is gone: closing a listener needs a restart"
        elif name not in old.listeners:
            yield ("listeners", name), "is new: opening a listener needs a restart"
        else:
            for part in _FIXED_IN_LISTENER:
                path = ("listeners", name, *part)
                if _value(old, path) != _value(new, path):
                    yield path, _changed(old, new, path)
    yield from _http_needs_restart(old, new)


def _http_needs_restart(old: BrokerConfig, new: BrokerConfig) -> Iterator[tuple[Path, str]]:
    if old.serves_http != new.serves_http:
        yield ("http",), f"is {'new' if new.serves_http else 'gone'}: this needs a restart"
        return
    for key in type(old.http).model_fields:
        if key not in _HTTP_LIVE and getattr(old.http, key) != getattr(new.http, key):
            yield ("http", key), _changed(old, new, ("http", key))


def changed_sections(old: BrokerConfig, new: BrokerConfig) -> tuple[str, ...]:
    """Return the names of the top sections that differ, for the log. Each listener has its own name."""
    changed = []
    for key in type(old).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if key == "listeners":
            changed += [f"listeners.{name}" for name in after if before.get(name) != after[name]]
        elif before != after:
            changed.append(key)
    return tuple(changed)


def _value(config: BrokerConfig, path: Path) -> Any:
    value: Any = config
    for part in path:
        value = value[part] if isinstance(value, dict) else getattr(value, str(part))
    return value


def _changed(old: BrokerConfig, new: BrokerConfig, path: Path) -> str:
    if path == ("amqtt",):
        return "has changed, and amqtt cannot reload: this needs a restart"
    if path == ("auth",):
        return "has changed: this needs a restart"
    before, after = (without_credentials(str(_value(config, path))) for config in (old, new))
    if before == after:
        return "has changed: this needs a restart"
    return f"has changed from {before} to {after}: this needs a restart"
