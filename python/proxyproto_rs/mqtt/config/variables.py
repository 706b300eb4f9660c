"""Lays TBMQ's environment variables, with their names and their meaning, over the file.

The first that is set counts: a listener's variable, the listener's key, the global variable, the global key.
An empty variable counts as not set. `warnings` names each variable that changes what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import Path, Problem, dotted, got, shown
from .inheritance import DEFAULT_BINDS, kind_of_backend
from .values import (
    Bind,
    parse_bind,
    parse_bool,
    parse_duration,
    parse_float,
    parse_listener_bind,
    parse_mode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .source import Source

OPEN_WITHOUT_A_FILE = ("tcp", "ws")
"""TBMQ's listeners that are open unless a variable closes them."""


@dataclass(slots=True)
class Overlay:
    """Applies the variables to a source. Call `apply` once."""

    source: Source
    environ: Mapping[str, str]
    with_file: bool
    warnings: list[str] = field(default_factory=list)

    def apply(self) -> None:
        """Change the tree, its origins and its problems in place."""
        if not self.with_file:
            self._default_listeners()
        self._set("MQTT_PROXY_PROTOCOL_ENABLED", ("proxy_protocol",), _mode)
        for name in DEFAULT_BINDS:
            self._listener(name)
        self._bind("HTTP", ("http", "bind"), "127.0.0.1:8083")
        self._set("SECURITY_UNAUTH_CLIENTS_ENABLED", ("unauthorized", "enabled"), parse_bool)
        self._set("SQL_TTL_UNAUTHORIZED_CLIENT_TTL", ("unauthorized", "ttl"), parse_float)
        self._set(
            "BLOCKED_CLIENT_CLEANUP_TTL_MINUTES", ("blocked", "cleanup_ttl"), lambda v: parse_float(v) * 60
        )
        self._set("MQTT_SESSIONS_LIMIT", ("limits", "max_sessions"), str)
        self._embedded("MQTT_MAX_IN_FLIGHT_MSGS", "max_inflight", str)
        self._embedded("MQTT_PERSISTENT_SESSION_DEVICE_PERSISTED_MESSAGES_LIMIT", "max_queued", str)
        self._embedded("MQTT_CLIENT_SESSION_EXPIRY_MAX_EXPIRY_INTERVAL", "session_expiry", parse_float)

    def _default_listeners(self) -> None:
        listeners: dict[str, Any] = {}
        for name in DEFAULT_BINDS:
            variable = f"LISTENER_{name.upper()}_ENABLED"
            if self._bool(variable, ("listeners", name), default=name in OPEN_WITHOUT_A_FILE):
                listeners[name] = {}
        self.source.tree["listeners"] = listeners

    def _listener(self, name: str) -> None:
        upper, path = name.upper(), ("listeners", name)
        listeners = self.source.tree.get("listeners")
        enabled = self._bool(f"LISTENER_{upper}_ENABLED", path, default=None) if self.with_file else None
        if not isinstance(listeners, dict) or name not in listeners:
            if enabled:
                self.warnings.append(
                    f"LISTENER_{upper}_ENABLED=true changes nothing: with a file only the listeners it names"
                    f" are opened, and it names no {name!r}"
                )
            return
        if enabled is False:
            del listeners[name]
            self.source.closed.append(name)
            self.warnings.append(
                f"LISTENER_{upper}_ENABLED=false closes listeners.{name} ({self.source.origin(path)})"
            )
            return
        if listeners[name] is None:
            listeners[name] = {}
        self._bind(f"LISTENER_{upper}", (*path, "bind"), DEFAULT_BINDS[name])
        self._set(f"MQTT_{upper}_PROXY_PROTOCOL_ENABLED", (*path, "proxy_protocol"), _mode)
        if name in ("ssl", "wss"):
            self._set(f"LISTENER_{upper}_PEM_CERT", (*path, "tls", "certfile"), str)
            self._set(f"LISTENER_{upper}_PEM_KEY", (*path, "tls", "keyfile"), str)
            self._set(f"LISTENER_{upper}_PEM_KEY_PASSWORD", (*path, "tls", "key_password"), str)
        if name in ("ws", "wss"):
            self._forward_headers(f"MQTT_{upper}_FORWARD_HEADERS_ENABLED", (*path, "ws", "forwarded"))

    def _embedded(self, variable: str, key: str, parse: Callable[[str], Any]) -> None:
        if self._value(variable) is None:
            return
        tree = self.source.tree
        kind = kind_of_backend(tree)
        if kind != "embedded":
            self.warnings.append(
                f"{variable} changes nothing: the backend is {kind}, and only embedded has {key}"
            )
            return
        if not isinstance(tree.get("backend"), dict):
            tree["backend"] = {"embedded": {}}  # it was the word, or nothing
        self._set(variable, ("backend", "embedded", key), parse)

    def _forward_headers(self, variable: str, path: Path) -> None:
        wanted = self._bool(variable, path, default=None)
        configured = self._get(path)
        if wanted and configured is None:
            self._problem(
                variable, path, "needs ws.forwarded.trusted in the file: it names the proxies to believe"
            )
        elif wanted is False and configured is not None:
            self._put(variable, path, None, "false")

    def _bind(self, prefix: str, path: Path, default: str) -> None:
        host, port = self._value(f"{prefix}_BIND_ADDRESS"), self._value(f"{prefix}_BIND_PORT")
        if host is None and port is None:
            return
        try:
            current = parse_listener_bind(self._get(path) if self._get(path) is not None else default)
        except ValueError:
            return  # the model reports the key
        if current.systemd:
            current = parse_bind(default)
        variable = f"{prefix}_BIND_ADDRESS" if port is None else f"{prefix}_BIND_PORT"
        address = str(Bind(host or current.host, 0)).removesuffix(":0")
        text = f"{address}:{current.port if port is None else port}"
        self._put(variable, path, text, host if port is None else port)

    def _set(self, variable: str, path: Path, parse: Callable[[str], Any]) -> None:
        text = self._value(variable)
        if text is None:
            return
        try:
            value = parse(text)
        except ValueError as wrong:
            self._problem(variable, path, f"{wrong} {got(path, text)}")
            return
        self._put(variable, path, value, text)

    def _put(self, variable: str, path: Path, value: Any, said: str | None) -> None:
        tree: Any = self.source.tree
        for key in path[:-1]:
            if tree.get(key) is None:
                tree[key] = {}
            tree = tree[key]
            if not isinstance(tree, dict):
                return  # the model reports the key
        before = _alias(tree, path)
        if before is not None and not _same(path, before, value):
            told = shown(path, said).strip('"')
            self.warnings.append(
                f"{variable}={told} overrides {dotted(path)}: {shown(path, before)}"
                f" ({self.source.origin(path)})"
            )
        if path[-1] == "proxy_protocol":
            tree.pop("proxy_enabled", None)
        tree[path[-1]] = value
        self.source.origins[path] = variable

    def _get(self, path: Path) -> Any:
        tree: Any = self.source.tree
        for key in path:
            tree = tree.get(key) if isinstance(tree, dict) else None
        return tree

    def _bool(self, variable: str, path: Path, *, default: bool | None) -> bool | None:
        text = self._value(variable)
        if text is None:
            return default
        try:
            return parse_bool(text)
        except ValueError as wrong:
            self._problem(variable, path, f"{wrong} {got((), text)}")
            return default

    def _value(self, variable: str) -> str | None:
        return self.environ.get(variable, "").strip() or None

    def _problem(self, variable: str, path: Path, text: str) -> None:
        self.source.problems.append(Problem(variable, path, text))


def _mode(text: str) -> str:
    return "required" if parse_bool(text) else "off"


def _alias(tree: dict[str, Any], path: Path) -> Any:
    key = str(path[-1])
    return tree.get("proxy_enabled") if key == "proxy_protocol" and key not in tree else tree.get(key)


def _same(path: Path, before: Any, after: Any) -> bool:
    parsers: dict[str | int, Callable[[Any], Any]] = {
        "proxy_protocol": parse_mode,
        "enabled": parse_bool,
        "bind": parse_listener_bind,
        "ttl": parse_duration,
        "cleanup_ttl": parse_duration,
        "session_expiry": parse_duration,
    }
    parse = parsers.get(path[-1], str)
    try:
        return bool(parse(before) == parse(after))
    except ValueError:
        return False
