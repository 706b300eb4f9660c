"""Fills in what depends on other keys, before anything is validated: the backend, and what listeners inherit.

This works on mappings and keys only. The models validate the values later, once, in the listener.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import Path

INHERITED = {"proxy": "proxy", "tls": "tls_defaults", "identity": "identity"}
"""Key of a listener -> the global section that supplies the keys which the listener does not set."""

DEFAULT_BINDS = {"tcp": "0.0.0.0:1883", "ssl": "0.0.0.0:8883", "ws": "0.0.0.0:8084", "wss": "0.0.0.0:8085"}
"""TBMQ's four listeners. Without a `type`, a listener with one of these names has the type of that name."""


def resolve(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same tree with its backend, in which every listener holds everything that applies to it."""
    resolved = _without_nothing(tree)
    if "proxy_enabled" in resolved and "proxy_protocol" not in resolved:
        resolved["proxy_protocol"] = resolved.pop("proxy_enabled")
    resolved["backend"] = backend_of(resolved)
    listeners = resolved.get("listeners")
    if isinstance(listeners, Mapping):
        resolved["listeners"] = {
            str(name): _resolve_listener(str(name), {} if own is None else own, resolved)
            for name, own in listeners.items()
        }
    return resolved


def backend_of(tree: Mapping[str, Any]) -> Any:
    """Return what `backend` says. Left out, it is amqtt where the file has that section, and else embedded."""
    backend = tree.get("backend")
    if backend is not None:
        return backend
    return "embedded" if tree.get("amqtt") is None else "amqtt"


def kind_of_backend(tree: Mapping[str, Any]) -> str:
    """Return `embedded`, `upstream` or `amqtt`, or whatever stands there that is none of these."""
    backend = backend_of(tree)
    return str(next(iter(backend), "")) if isinstance(backend, Mapping) else str(backend)


def written_at(path: Path) -> Path:
    """The global key that a listener inherited a value from: listeners.tcp.proxy.backlog is proxy.backlog."""
    if len(path) > 2 and path[0] == "listeners":  # noqa: PLR2004 (listeners, NAME, section)
        if path[2] == "proxy_protocol":
            return ("proxy_protocol",)
        if path[2] in INHERITED:
            return (INHERITED[str(path[2])], *path[3:])
    return path


def _resolve_listener(name: str, own: Any, tree: Mapping[str, Any]) -> Any:
    if not isinstance(own, Mapping):
        return own
    listener = _without_nothing(own)
    if "proxy_enabled" in listener and "proxy_protocol" not in listener:
        listener["proxy_protocol"] = listener.pop("proxy_enabled")
    listener["name"] = name
    if name in DEFAULT_BINDS:
        listener.setdefault("type", name)
        if listener["type"] == name:
            listener.setdefault("bind", DEFAULT_BINDS[name])
    listener.setdefault("proxy_protocol", tree.get("proxy_protocol", "off"))
    for key, section in INHERITED.items():
        if key == "tls" and listener.get("type") not in ("ssl", "wss") and "tls" not in listener:
            continue
        listener[key] = _merge(tree.get(section), listener.get(key))
    if listener.get("type") in ("ws", "wss"):
        listener.setdefault("ws", {})
    return listener


def _without_nothing(section: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out keys whose value is null: `audit:` with nothing below it means the same as no `audit`."""
    return {key: value for key, value in section.items() if value is not None}


def _merge(defaults: Any, own: Any) -> Any:
    if own is None:
        own = {}
    if not isinstance(own, Mapping):
        return own
    return {**(defaults if isinstance(defaults, Mapping) else {}), **own}
