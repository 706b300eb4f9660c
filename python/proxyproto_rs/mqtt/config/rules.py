"""Refuses settings that are right one by one, but together would let everybody in, or nobody."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyproto_rs._core import Broker, Gateway

from ..model.networks import parse_address
from ..model.patterns import compile_globs
from .embedded import acl_rules, broker_options, upstream_of
from .errors import Path
from .gateway import gateway_options
from .sections import LimitsConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .embedded import AclRule
    from .http import HttpConfig
    from .listener import ListenerConfig, ProxyConfig
    from .sections import AccessRule, AmqttConfig, MqttConfig
    from .upstream import AuthConfig, BackendConfig, EmbeddedConfig, UpstreamConfig

ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"
OURS = "proxyproto_rs.mqtt.PasswordFile"


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: the key to change, and why."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the front. What is not valid is None."""

    backend: BackendConfig | None
    auth: tuple[AuthConfig, ...] | None
    mqtt: MqttConfig | None
    acl: tuple[AclRule, ...] | None = ()

    @property
    def upstream(self) -> UpstreamConfig | None:
        """The servers, if there are any."""
        return None if self.backend is None else self.backend.upstream

    @property
    def embedded(self) -> EmbeddedConfig | None:
        """The broker in this process, if there is one."""
        return None if self.backend is None else self.backend.embedded


@dataclass(frozen=True, slots=True)
class Served:
    """The section `http`, and the proxies of all listeners. None if there is none, or it is not valid."""

    http: HttpConfig | None
    proxy: ProxyConfig | None


def check(
    listeners: Iterable[ListenerConfig],
    amqtt: AmqttConfig | None,
    access: Iterable[tuple[int, AccessRule]],
    names: Iterable[str],
    *,
    behind: Behind,
    http: Served,
) -> Iterator[Finding]:
    """Yield every broken rule.

    `amqtt` is None if that section is not valid anyway. `access` are the valid rules with their positions,
    `names` the listeners that may be named, also those that are not valid or closed.
    """
    listeners = list(listeners)
    for listener in listeners:
        yield from _belief(listener)
        yield from _tls(listener)
        yield from _identity(listener)
    yield from _ports(listeners)
    if behind.upstream is not None:
        yield from _in_front(listeners, amqtt, behind, "backend.upstream")
        yield from _upstream(behind.upstream, behind)
    elif behind.embedded is not None:
        yield from _in_front(listeners, amqtt, behind, "backend.embedded")
        yield from _embedded(behind.embedded, behind)
    elif amqtt is not None and behind.backend is not None:
        yield from _plugins(listeners, amqtt)
        yield from _passwords_of_keys(listeners)
        yield from _without_servers(behind)
    if behind.acl and behind.embedded is None and behind.backend is not None:
        yield Finding(("acl",), "needs backend.embedded: other brokers have rules of their own")
    yield from _access(access, sorted(names))
    if http.http is not None:
        yield from _http(http.http, http.proxy)


def _belief(listener: ListenerConfig) -> Iterator[Finding]:
    path: Path = ("listeners", listener.name)
    trusted = (*path, "proxy", "trusted")
    if listener.proxy_protocol == "optional" and listener.proxy.trusted is None:
        yield Finding(
            trusted,
            "must be set with proxy_protocol: optional; otherwise anybody can claim to be anybody",
        )
    if listener.identity.source == "header":
        if listener.proxy_protocol == "off":
            yield Finding(
                (*path, "identity", "source"), "header needs proxy_protocol: no header is read here"
            )
        elif listener.proxy.trusted is None:
            yield Finding(
                trusted,
                "must be set with identity.source: header; otherwise anybody can send a certificate's name",
            )
    if listener.ws is not None:
        if not listener.websocket:
            yield Finding((*path, "ws"), f"belongs to ws and wss listeners, and this one is {listener.type}")
        elif listener.ws.forwarded is not None and listener.proxy_protocol != "off":
            yield Finding(
                (*path, "ws", "forwarded"),
                "cannot be combined with proxy_protocol: only one of the two may name the client",
            )


def _tls(listener: ListenerConfig) -> Iterator[Finding]:
    path: Path = ("listeners", listener.name, "tls")
    tls = listener.tls
    if not listener.tls_here:
        if tls is not None:
            yield Finding(path, f"belongs to ssl and wss listeners, and this one is {listener.type}")
        return
    if tls is not None and tls.certificates and tls.certfile is None and tls.keyfile is None:
        pass
    elif tls is None or tls.certfile is None or tls.keyfile is None:
        missing = "keyfile" if tls is not None and tls.certfile is not None else "certfile"
        yield Finding(
            path, f"has no {missing}, here or in tls_defaults, and a {listener.type} listener needs one"
        )
        return
    if tls.client_certificate != "none" and tls.cafile is None:
        yield Finding(
            (*path, "cafile"),
            f"must be set with client_certificate: {tls.client_certificate}; otherwise no certificate can be verified",
        )
    if tls.key_password is not None and tls.key_password_file is not None:
        yield Finding((*path, "key_password_file"), "stands beside key_password: keep one")


def _identity(listener: ListenerConfig) -> Iterator[Finding]:
    path: Path = ("listeners", listener.name, "identity", "source")
    if listener.identity.source != "tls":
        return
    if not listener.tls_here:
        yield Finding(path, f"tls needs TLS at the listener, and this one is {listener.type}")
    elif listener.tls is not None and listener.tls.client_certificate == "none":
        yield Finding(
            path,
            "tls needs tls.client_certificate: optional or required; otherwise no client is asked for a certificate",
        )


def _ports(listeners: list[ListenerConfig]) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for listener in listeners:
        where = str(listener.bind)
        if (listener.bind.port or listener.bind.systemd) and where in taken:
            yield Finding(
                ("listeners", listener.name, "bind"), f"{where} is listeners.{taken[where]}.bind already"
            )
        taken.setdefault(where, listener.name)


def _access(access: Iterable[tuple[int, AccessRule]], names: list[str]) -> Iterator[Finding]:
    there_are = f"there are {', '.join(names)}"
    for position, rule in access:
        path: Path = ("access", position, "listeners")
        if rule.listeners == ():
            yield Finding(path, f"names no listener ({there_are})")
        for index, glob in enumerate(rule.listeners or ()):
            pattern = compile_globs((glob,))
            if not any(pattern.fullmatch(name) for name in names):
                yield Finding((*path, index), f"names no listener (got {json.dumps(glob)}; {there_are})")


def _http(http: HttpConfig, proxy: ProxyConfig | None) -> Iterator[Finding]:
    if http.tls is None and not is_loopback(http.bind.host):
        yield Finding(
            ("http", "tls"),
            f"must be set to serve {http.bind}, which is not loopback: the token would go over the network"
            " for everybody to read",
        )
    if http.tls is not None:
        for key in ("certfile", "keyfile"):
            if getattr(http.tls, key) is None:
                yield Finding(("http", "tls", key), "must be set")
    if http.token is not None and http.token_file is not None:
        yield Finding(("http", "token_file"), "stands beside token: keep one")
    for key in ("token", "read_token"):
        token = getattr(http, key)
        if token is not None and not is_usable_token(token.get_secret_value()):
            yield Finding(("http", key), "must be printable ASCII without a space, as a header carries it")
    if http.proxy_protocol == "optional" and proxy is not None and proxy.trusted is None:
        yield Finding(
            ("proxy", "trusted"),
            "must be set with http.proxy_protocol: optional; otherwise anybody can claim to be anybody",
        )


def is_loopback(host: str) -> bool:
    """Whether a socket that is bound to this host can be reached from this machine only."""
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_usable_token(token: str) -> bool:
    """Whether a header can carry the token."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def _plugins(listeners: list[ListenerConfig], amqtt: AmqttConfig) -> Iterator[Finding]:
    if importlib.util.find_spec("amqtt") is None:
        yield Finding(
            ("amqtt",),
            'needs the package amqtt: pip install "proxyproto_rs[amqtt]"; or leave amqtt out for the embedded broker',
        )
        return
    authenticate = False
    for path in amqtt.plugins:
        try:
            plugin = _import(path)
        except Exception as wrong:  # an import runs the module, which may raise anything
            yield Finding(("amqtt", "plugins", path), f"cannot be imported: {wrong}")
            authenticate = True  # report one mistake once
            continue
        authenticate = authenticate or callable(getattr(plugin, "authenticate", None))
    by_certificate = [_needs_no_password(listener) for listener in listeners]
    if not authenticate and not (by_certificate and all(by_certificate)):
        yield Finding(
            ("amqtt", "plugins"),
            f"holds no auth plugin: list one, such as {OURS}, or {ANONYMOUS} to let everybody in",
        )


def _in_front(
    listeners: list[ListenerConfig], amqtt: AmqttConfig | None, behind: Behind, name: str
) -> Iterator[Finding]:
    for listener in listeners:
        for key in ("key_password", "key_password_file"):
            if listener.tls is not None and getattr(listener.tls, key) is not None:
                yield Finding(
                    ("listeners", listener.name, "tls", key),
                    f"cannot be used with {name}, which reads no encrypted key: write one without a"
                    " password with `openssl pkey -in KEY -out NEW`",
                )
    if amqtt is not None and amqtt.plugins:
        yield Finding(("amqtt",), f"is not used with {name}: keep one of the two")
    for position, source in enumerate(behind.auth or ()):
        if source.plugin is not None:
            yield from _callable(("auth", position, "plugin"), source.plugin)


def _upstream(upstream: UpstreamConfig, behind: Behind) -> Iterator[Finding]:
    if behind.mqtt is not None:
        try:
            Gateway.check(gateway_options(upstream, behind.mqtt, LimitsConfig(), 0))
        except ValueError as wrong:
            yield _told_by_the_core(wrong)


def _embedded(embedded: EmbeddedConfig, behind: Behind) -> Iterator[Finding]:
    if behind.auth is not None and (not behind.auth or any(source.upstream for source in behind.auth)):
        yield Finding(
            ("auth",),
            "must say who knows the passwords, as the embedded broker knows none: file, http or plugin;"
            " or anonymous, to let in whoever gives no user name",
        )
    if embedded.cluster is not None and embedded.sys_interval is not None:
        yield Finding(
            ("backend", "embedded", "sys_interval"),
            "cannot be combined with cluster: what a node told of itself would replace what the others told",
        )
    if embedded.cluster is not None and embedded.persistence is not None:
        yield Finding(
            ("backend", "embedded", "cluster"),
            "cannot be combined with persistence: nodes that come back with sessions of before are not told apart"
            " from those that have moved on. Keep one of the two",
        )
    if behind.mqtt is None or behind.acl is None:
        return
    try:
        Gateway.check(gateway_options(upstream_of(_NOWHERE), behind.mqtt, LimitsConfig(), 0))
        Broker.check(broker_options(embedded, behind.mqtt), acl_rules(behind.acl))
    except ValueError as wrong:
        yield _told_by_the_core(wrong)


_NOWHERE = "127.0.0.1:1"
"""Stands for the port that the kernel will choose."""


def _told_by_the_core(wrong: ValueError) -> Finding:
    option, _, text = str(wrong).partition(": ")
    path: Path = tuple(int(part) if part.isdigit() else part for part in option.split("."))
    return Finding(("backend", *path) if path[0] in ("upstream", "embedded") else path, text)


def _passwords_of_keys(listeners: list[ListenerConfig]) -> Iterator[Finding]:
    for listener in listeners:
        tls = listener.tls
        if tls is None or (tls.key_password is None and tls.key_password_file is None):
            continue
        for key in ("certificates", "crlfile"):
            if getattr(tls, key):
                yield Finding(
                    ("listeners", listener.name, "tls", key),
                    "cannot be used with a key that has a password: write one without with"
                    " `openssl pkey -in KEY -out NEW`",
                )


def _without_servers(behind: Behind) -> Iterator[Finding]:
    if behind.auth is not None and any(not source.upstream for source in behind.auth):
        yield Finding(
            ("auth",), "needs backend.embedded or backend.upstream: amqtt's plugins stand under amqtt.plugins"
        )


def _callable(path: Path, text: str) -> Iterator[Finding]:
    try:
        found = import_callable(text)
    except Exception as wrong:  # an import runs the module, which may raise anything
        yield Finding(path, f"cannot be imported: {wrong}")
    else:
        if not callable(found):
            yield Finding(path, f"{text} is not callable")


def import_callable(text: str) -> object:
    """Return what `module:name` names. Raises ImportError, or whatever the module raises."""
    module, _, name = text.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(f"{module} has no {name}") from None
    return found


def _needs_no_password(listener: ListenerConfig) -> bool:
    """Whether the certificate is the login (mode `username`), so that no plugin is asked."""
    return listener.identity.source != "none" and listener.identity.use_as == "username"


def _import(path: str) -> object:
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError("must be module.Class")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise ImportError(f"{module} has no {name}") from None
